"""What was stored to, for somebody who asks beside the calls that send it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rpmem.memory.changes.pageset import PageSet


class Stores:
    """Pages that were found stored to, by whichever look.

    Parameters
    ----------
    pages, fresh : PageSet
        Empty: what was found until now, and what the look finds that is under way.
    seen : bool
        Stores were watched before this was made, so those pages that are in it from the beginning
        were seen to be stored to.
    """

    def __init__(self, pages: PageSet, fresh: PageSet, *, seen: bool) -> None:
        self.pages = pages
        self.fresh = fresh
        self.seen = seen

    def add_fresh(self) -> None:
        """Add what a look has found."""
        self.pages.update(self.fresh)
        self.fresh.clear()

    def take(self) -> bytearray:
        """Return what was found, as offsets and lengths, and forget it."""
        found = self.pages.ranges()
        self.pages.clear()
        return found
