"""rpmemd on the shadow medium, which waits or refuses while a file tells it to.

Beside the pool sets, a file ``hold`` keeps every flush back, ``held`` says that one is, and
``refuse`` lets it fail. Started through ``command=``::

    python -P -m tests.support.changes_target [options of rpmemd]
"""

from __future__ import annotations

import errno
import functools
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rpmem.errors import RpmemError
from rpmem.files.poolfiles import PoolFiles
from rpmemd import config as configuration
from rpmemd.__main__ import serve
from rpmemd.database import Database
from rpmemd.log import Log
from tests.support.compiled import build
from tests.support.shadow import map_shadow

_LOOK_S = 0.0005
_LONG_S = 60.0


def command() -> str:
    """Return what to give as ``command=``; what it needs is built here, not in its time."""
    build("_hooked_media")
    return shlex.join([sys.executable, "-P", "-m", "tests.support.changes_target"])


@contextmanager
def holding(directory: Path) -> Iterator[None]:
    """Keep back the acknowledgements of the target of a directory."""
    (directory / "hold").touch()
    try:
        yield
    finally:
        (directory / "hold").unlink()
        (directory / "held").unlink(missing_ok=True)


def wait_held(directory: Path, seconds: float = _LONG_S) -> bool:
    """Wait until an acknowledgement is kept back; return whether one is."""
    end = time.monotonic() + seconds
    while not (directory / "held").exists():
        if time.monotonic() > end:
            return False
        time.sleep(_LOOK_S)
    return True


@contextmanager
def refusing(directory: Path) -> Iterator[None]:
    """Let the medium of the target of a directory refuse."""
    (directory / "refuse").touch()
    try:
        yield
    finally:
        (directory / "refuse").unlink()


def _obey(directory: Path) -> int:
    """Wait as long as a flush is to be kept back; return the errno with which it fails."""
    if (directory / "hold").exists():
        (directory / "held").touch()
        while (directory / "hold").exists():
            time.sleep(_LOOK_S)
    return errno.EIO if (directory / "refuse").exists() else 0


def main() -> int:
    """Serve one initiator."""
    log = Log()  # stderr, which the initiator's errors quote
    try:
        config = configuration.read(sys.argv[1:])
        database = Database(config.poolset_dir, file_mode=config.file_mode)
    except RpmemError as error:
        log.err(str(error))
        return 1
    before = functools.partial(_obey, Path(config.poolset_dir))
    PoolFiles.mapper = staticmethod(functools.partial(map_shadow, before=before))
    return serve(config, log, database)


if __name__ == "__main__":
    sys.exit(main())
