from typing import Self, final

from rpmem.memory.changes.pageset import PageSet
from rpmem.memory.region import Region

@final
class WrittenPages:
    """Finds the pages of a region that were stored to, by write protection that ends by itself."""

    def __new__(
        cls, region: Region, *, holes: bool | None = None, huge: bool | None = None
    ) -> Self: ...
    def take(self, pages: PageSet, offset: int, length: int) -> None: ...
    @property
    def hot(self) -> int: ...
    @property
    def released(self) -> int: ...
    def close(self) -> None: ...

def try_on(region: Region) -> None: ...
