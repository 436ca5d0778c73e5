from collections.abc import Callable, Sequence

from rpmem._pmem import Region

def hook(
    region: Region, call: Callable[[str, int, int], int | None], *, medium: str = "page"
) -> None: ...
def make_private(region: Region, spans: Sequence[tuple[int, int, int]]) -> None: ...
