"""What this machine makes of files on persistent memory."""

from __future__ import annotations

from rpmem.errors import MissingExtension

__all__ = ["why_not_pmem"]


def why_not_pmem() -> MissingExtension | None:
    """Return why files on DAX are made durable by ``msync``; None if caches are written back."""
    try:
        from rpmem.memory.device import need_library

        need_library()
    except MissingExtension as error:
        return error
    return None
