"""rpmemd of a machine whose boot and medium are as told, for tests of reboots.

Started through ``command=``: ``python -P -m tests.support.rebooted_rpmemd BOOT MEDIUM [options]``.
"""

from __future__ import annotations

import shlex
import sys
from typing import Any

from rpmem.control.messages import Ready
from rpmemd import boot, session
from rpmemd.__main__ import main as serve

NOT_KNOWN = 0


def command(number: int, medium: str = "volatile") -> str:
    """Return what to give as ``command=`` for a machine in that boot."""
    words = [sys.executable, "-P", "-m", "tests.support.rebooted_rpmemd", str(number), medium]
    return shlex.join(words)


def main() -> int:
    """Serve as that machine."""
    number, medium = int(sys.argv.pop(1)), sys.argv.pop(1)
    boot.boot_id = lambda: bytes([number]) * 16 if number else None

    def ready(**fields: Any) -> Ready:
        return Ready(**{**fields, "medium": medium})

    session.Ready = ready  # type: ignore[misc,assignment]
    return serve()


if __name__ == "__main__":
    sys.exit(main())
