"""Which boot of this machine this is: what was only in its memory does not outlive it."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Final

_PLACE: Final = Path("/proc/sys/kernel/random/boot_id")


def boot_id() -> bytes | None:
    """Return the 16 bytes that Linux drew when it started; None where it does not tell."""
    try:
        return uuid.UUID(_PLACE.read_text(encoding="ascii").strip()).bytes
    except (OSError, ValueError):
        return None
