"""rpmemd as tests want it: on the shadow medium, and broken on purpose.

On the shadow medium only what was flushed reaches the parts; the rest is lost with the process,
so SIGKILL does what a power cut does to a real medium. Started through ``command=``::

    python -P -m tests.support.faulty_rpmemd --shadow --breakage 1 [options of rpmemd]
"""

from __future__ import annotations

import shlex
import sys

from rpmem.errors import RpmemError
from rpmemd import config as configuration
from rpmemd.__main__ import serve
from rpmemd.database import Database
from rpmemd.log import Log

# rpmemd/_service.pxd, where Python cannot see them.
SKIP_FLUSH = 1
ANSWER_EARLY = 2


def command(*, shadow: bool = True, breakage: int = 0, options: str = "") -> str:
    """Return what to give as ``command=`` for a daemon like that."""
    words = [sys.executable, "-P", "-m", "tests.support.faulty_rpmemd"]
    if shadow:
        words.append("--shadow")
    if breakage:
        words += ["--breakage", str(breakage)]
    return f"{shlex.join(words)} {options}".strip()


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
        database = Database(config.poolset_dir, shadow=shadow)
    except RpmemError as error:
        log.err(str(error))
        return 1
    return serve(config, log, database, breakage=breakage)


if __name__ == "__main__":
    sys.exit(main())
