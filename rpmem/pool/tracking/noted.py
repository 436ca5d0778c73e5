"""Stores that nothing sees, as somebody notes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rpmem.memory.changes.pageset import PageSet


class Noted:
    """Ranges that were stored to without anybody seeing it, until somebody looks for changes.

    Threads may note ranges at any time.

    Parameters
    ----------
    touched : PageSet, optional
        Their pages are added there for good.
    keep : bool
        Somebody will look for changes.
    """

    def __init__(self, touched: PageSet | None = None, *, keep: bool = True) -> None:
        self._ranges: list[tuple[int, int]] = []
        self._touched = touched
        self._keep = keep

    def note(self, offset: int, length: int) -> None:
        """Note a range, once all of it is stored."""
        if self._touched is not None:
            self._touched.add(offset, length)
        if self._keep:
            self._ranges.append((offset, length))

    def note_all(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Note several ranges."""
        self._ranges.extend(ranges)

    def move_to(self, pages: PageSet) -> None:
        """Add what was noted by now to a set of pages."""
        count = len(self._ranges)
        for each in self._ranges[:count]:
            pages.add(*each)
        del self._ranges[:count]  # not before: an interrupt in between must lose nothing
