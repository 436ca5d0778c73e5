from collections.abc import Iterable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Literal, Never, Self, final

from numpy.typing import DTypeLike, NDArray

class Kind:
    """A kind of memory that arrays can be put into."""

    name: str

    def __init__(self, *args: Never, **kwargs: Never) -> None: ...
    @property
    def available(self) -> bool: ...
    @property
    def capacity(self) -> int | None: ...
    @property
    def arrays(self) -> int: ...
    @property
    def allocated(self) -> int: ...
    @property
    def closed(self) -> bool: ...
    def numpy_handler(self) -> AbstractContextManager[Kind]: ...
    def empty(
        self,
        shape: int | Iterable[int],
        dtype: DTypeLike = ...,
        order: Literal["C", "F"] = "C",
    ) -> NDArray[Any]: ...
    def zeros(
        self,
        shape: int | Iterable[int],
        dtype: DTypeLike = ...,
        order: Literal["C", "F"] = "C",
    ) -> NDArray[Any]: ...
    def holds(self, array: object) -> bool: ...

@final
class FileKind(Kind):
    """A kind in a file without a name, on the file system of a directory."""

    directory: str
    max_size: int

    def close(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

def in_directory(directory: str, max_size: int) -> FileKind: ...

KINDS: dict[str, Kind]
