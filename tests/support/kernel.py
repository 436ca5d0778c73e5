"""What this machine's kernel can do."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import contextmanager

from rpmem.errors import UsageError
from rpmem.memory.changes.pagemap import try_on
from rpmem.memory.changes.pageset import PageSet
from rpmem.memory.region import Region
from rpmem.pool.tracking.watched import Watched


def tells_no_stores() -> str:
    """Return why the kernel does not tell which pages are stored to; empty if it does."""
    with Region.anonymous(mmap.PAGESIZE) as region:
        try:
            try_on(region)
        except UsageError as error:
            return f"the kernel does not tell which pages are stored to: {error}"
    return ""


@contextmanager
def dropping(dropped: int) -> Iterator[None]:
    """Have the kernel forget all the while that it protects a page, as if it were short of memory.

    It tells of such a page as of one that was stored to.
    """
    look = Watched.look

    def look_at_all(watched: Watched, pages: PageSet, offset: int, length: int) -> None:
        look(watched, pages, offset, length)
        if offset <= dropped < offset + length:
            pages.add(dropped, 1)

    Watched.look = look_at_all  # type: ignore[method-assign]
    try:
        yield
    finally:
        Watched.look = look  # type: ignore[method-assign]
