"""Objects that stand for something open: a second one of the same thing would end it twice."""

from __future__ import annotations

from typing import ClassVar, NoReturn


def refuse_copy(handle: object, instead: str) -> NoReturn:
    """Raise the TypeError of a copy or a pickle of a handle.

    Parameters
    ----------
    handle : object
        What somebody tried to copy.
    instead : str
        What to do.
    """
    raise TypeError(
        f"a handle such as {handle!r} cannot be copied or pickled: it stands for something that "
        f"is open in this process. {instead}"
    )


class Handle:
    """Base of objects that `copy` and `pickle` have to leave alone."""

    __slots__ = ()
    _instead: ClassVar[str] = "Open it where it is needed."

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        refuse_copy(self, self._instead)
