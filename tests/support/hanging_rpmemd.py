"""rpmemd that stops answering, or breaks, at a certain point, for tests of time-outs.

Started through ``command=``: ``python -P -m tests.support.hanging_rpmemd POINT [options]``.
"""

from __future__ import annotations

import shlex
import sys
import time
from typing import Any

from rpmem.errors import RpmemError
from rpmem.files import poolfiles
from rpmemd import __main__ as daemon
from rpmemd import lane_server, records, session

#: Where it can hang: before its first word, before the answer to a request, or before it looks at
#: the first connection. Besides: "record", where an epoch's record is set, and "digests".
POINTS = ("start", "hello", "create", "lanes", "attributes", "close")

_FOREVER = 600.0


def command(point: str) -> str:
    """Return what to give as ``command=`` for a daemon that hangs there."""
    return shlex.join([sys.executable, "-P", "-m", "tests.support.hanging_rpmemd", point])


def _hang(*_: Any, **__: Any) -> None:
    time.sleep(_FOREVER)


def _break(*_: Any, **__: Any) -> None:
    raise RpmemError("out of lanes")


def main() -> int:
    """Serve as far as told."""
    point = sys.argv.pop(1)
    if point == "start":
        _hang()
    elif point == "hello":
        session.Session._greet = _hang  # type: ignore[method-assign]
    elif point == "create":
        session.Session._serve = _hang  # type: ignore[method-assign]
    elif point == "lanes":
        lane_server.LaneServer._accept = _hang  # type: ignore[method-assign]
    elif point == "broken-lanes":
        lane_server.LaneServer._accept = _break  # type: ignore[method-assign]
    elif point == "attributes":
        poolfiles.PoolFiles.set_attributes = _hang  # type: ignore[method-assign]
    elif point == "record":
        records.Records.set = _hang  # type: ignore[method-assign]
    elif point == "digests":
        session.digests_of = _hang
    elif point == "close":
        session.Session._stop = _hang  # type: ignore[method-assign]
    else:
        raise ValueError(f"no such point: {point}")
    return daemon.main()


if __name__ == "__main__":
    sys.exit(main())
