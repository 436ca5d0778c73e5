"""What this machine's kernel can do."""

from __future__ import annotations

import mmap

from rpmem.errors import UsageError
from rpmem.memory.changes.pagemap import try_on
from rpmem.memory.region import Region


def tells_no_stores() -> str:
    """Return why the kernel does not tell which pages are stored to; empty if it does."""
    with Region.anonymous(mmap.PAGESIZE) as region:
        try:
            try_on(region)
        except UsageError as error:
            return f"the kernel does not tell which pages are stored to: {error}"
    return ""
