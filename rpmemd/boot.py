"""Which boot of this machine this is: what was only in its memory does not outlive it."""

from __future__ import annotations

from typing import Final

_PLACE: Final = "/proc/sys/kernel/random/boot_id"
_SIZE: Final = 16


def boot_id() -> bytes | None:
    """Return the 16 bytes that Linux drew when it started; None where it does not tell."""
    try:
        with open(_PLACE, encoding="ascii") as file:
            found = bytes.fromhex(file.read().strip().replace("-", ""))
    except (OSError, ValueError):
        return None
    return found if len(found) == _SIZE else None
