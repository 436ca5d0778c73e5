"""rpmemd for tests: on the shadow medium, or broken on purpose.

On the shadow medium only flushed data reaches the parts; the rest is lost with the process, so
SIGKILL has the effect of a power cut on a real medium. Started through ``command=``::

    python -P -m tests.support.faulty_rpmemd --shadow --breakage 1 [options of rpmemd]
"""

from __future__ import annotations

import os
import shlex
import sys

from rpmem.base.pool_format import RECORD_OFFSET
from rpmem.control.messages import Digest
from rpmem.epochs.kept import Pieces
from rpmem.errors import RpmemError
from rpmem.files.poolfiles import PoolFiles
from rpmemd import config as configuration
from rpmemd import session
from rpmemd.__main__ import serve
from rpmemd.database import Database
from rpmemd.hashing import Hashed
from rpmemd.lane_server import LaneServer
from rpmemd.log import Log
from rpmemd.records import Records
from tests.support.compiled import build, compiled

SKIP_FLUSH = 1
ANSWER_EARLY = 2
SKIP_RECORD_FLUSH = 3
SKIP_DIGEST_FLUSH = 4
SHORT_DIGESTS = 5
LONG_DIGESTS = 6
MADE_UP_DIGESTS = 7
_SERVICES = {SKIP_FLUSH: "SkipsFlush", ANSWER_EARLY: "AnswersEarly"}


def command(*, shadow: bool = True, breakage: int = 0, options: str = "") -> str:
    """Return what to give as ``command=`` for a daemon like that; built here, not in its time."""
    words = [sys.executable, "-P", "-m", "tests.support.faulty_rpmemd"]
    if shadow:
        build("_hooked_media")
        words.append("--shadow")
    if breakage in _SERVICES:
        build("_broken_service")
    if breakage:
        words += ["--breakage", str(breakage)]
    return f"{shlex.join(words)} {options}".strip()


def _store_only(self: Records, pieces: Pieces) -> None:
    for offset, data in pieces:
        self._region.write(RECORD_OFFSET + offset, data)


def _visible_digests(pool: PoolFiles, request: Digest, **_: int) -> bytes:
    from rpmem.memory.changes.unit_digests import unit_digests

    return unit_digests(pool.region, request.offset, request.length, request.unit, request.key)


_DIGESTS = {
    SKIP_DIGEST_FLUSH: lambda *what, **_: _visible_digests(*what),
    SHORT_DIGESTS: lambda *what, **_: _visible_digests(*what)[12:] or bytes(24),
    LONG_DIGESTS: lambda *what, **_: _visible_digests(*what) + bytes(12),
    MADE_UP_DIGESTS: lambda *what, **_: os.urandom(len(_visible_digests(*what))),
}


def main() -> int:
    """Serve one initiator."""
    arguments = sys.argv[1:]
    shadow = "--shadow" in arguments
    if shadow:
        arguments.remove("--shadow")
    breakage = 0
    if "--breakage" in arguments:
        at = arguments.index("--breakage")
        breakage = int(arguments[at + 1])
        del arguments[at : at + 2]
    log = Log()  # stderr, which the initiator's errors quote
    try:
        config = configuration.read(arguments)
        database = Database(config.poolset_dir, file_mode=config.file_mode)
    except RpmemError as error:
        log.err(str(error))
        return 1
    if shadow:
        from tests.support.shadow import map_shadow

        PoolFiles.mapper = staticmethod(map_shadow)
    if breakage == SKIP_RECORD_FLUSH:
        Records._store = _store_only  # type: ignore[method-assign]
    elif breakage in _DIGESTS:
        digests = _DIGESTS[breakage]
        session.digests_of = lambda *what, **how: Hashed(digests(*what, **how))
    elif breakage:
        LaneServer.service_class = getattr(compiled("_broken_service"), _SERVICES[breakage])
    return serve(config, log, database)


if __name__ == "__main__":
    sys.exit(main())
