from typing import Self, final

from typing_extensions import Buffer

from rpmem.memory.changes.lender import Lender
from rpmem.memory.changes.pageset import PageSet
from rpmem.memory.region import Region

class CopiedPages(Lender):
    """Pages of a window, copied when a call is about to send them."""

    def __new__(
        cls, place: Buffer, offset: int, digests: PageDigests, pages: PageSet, length: int
    ) -> Self: ...

@final
class PageDigests:
    """A digest of each page of a region, as all copies last acknowledged it."""

    def __new__(cls, region: Region, size: int | None = None) -> Self: ...
    def changed(self, pages: PageSet, offset: int, length: int) -> None: ...
    def lend(self, pages: PageSet, offset: int, length: int, staging: Buffer) -> CopiedPages: ...
    def confirm(self, pages: PageSet, offset: int, length: int) -> None: ...
    def forget(self, offset: int, length: int) -> None: ...
    def __len__(self) -> int: ...
