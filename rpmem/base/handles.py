"""Objects that represent something open: a copy would close the same thing a second time."""

from __future__ import annotations

from types import TracebackType
from typing import ClassVar, NoReturn, Self


def refuse_copy(handle: object, instead: str) -> NoReturn:
    """Raise the TypeError for copying or pickling a handle.

    Parameters
    ----------
    handle : object
        The object that was to be copied.
    instead : str
        What to do instead of copying it.
    """
    raise TypeError(
        f"a handle such as {handle!r} cannot be copied or pickled: it stands for something that "
        f"is open in this process. {instead}"
    )


class Handle:
    """Base of objects that `copy` and `pickle` refuse."""

    __slots__ = ()
    _instead: ClassVar[str] = "Open it where it is needed."

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        refuse_copy(self, self._instead)


class Closing(Handle):
    """Base of handles that the end of a ``with`` block closes."""

    __slots__ = ()

    def close(self) -> None:
        """Release what is open."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._leave()

    def _leave(self) -> None:
        self.close()
