"""Small immutable objects with named fields.

Like ``dataclasses``, but without generating code for each class: rpmemd is started anew for every
session, and its start is part of every open.
"""

from __future__ import annotations

from typing import Any, ClassVar, NoReturn, Self, TypeVar, dataclass_transform


class Value:
    """Base of immutable objects that are equal when their fields are.

    A subclass lists its fields as annotations; an assigned value is the default. It may check and
    set its fields in `_check`.

    Attributes
    ----------
    _hidden, _aside : frozenset of str
        Fields left out of the repr, and fields ignored in comparisons.
    """

    _fields: ClassVar[tuple[str, ...]] = ()
    _aside: ClassVar[frozenset[str]] = frozenset()
    _defaults: ClassVar[dict[str, Any]] = {}
    _hidden: ClassVar[frozenset[str]] = frozenset()
    __match_args__: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        own = [name for name, kind in cls.__annotations__.items() if "ClassVar" not in str(kind)]
        cls._fields = (*cls._fields, *own)
        cls._defaults = {**cls._defaults, **{n: vars(cls)[n] for n in own if n in vars(cls)}}
        cls.__match_args__ = cls._fields  # type: ignore[misc]

    def __init__(self, *args: Any, **named: Any) -> None:
        if len(args) > len(self._fields):
            raise TypeError(f"{type(self).__name__} has {len(self._fields)} fields")
        values = {**self._defaults, **dict(zip(self._fields, args, strict=False)), **named}
        if values.keys() != set(self._fields):
            wrong = values.keys() ^ set(self._fields)
            raise TypeError(f"{type(self).__name__}: missing or unknown: {', '.join(wrong)}")
        self.__dict__.update(values)
        self._check()

    def _check(self) -> None:
        """Raise an error if something is wrong with the fields."""

    def replaced(self, **changes: Any) -> Self:
        """Return a copy with other values in some fields."""
        return type(self)(**{**self.__dict__, **changes})

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} cannot be changed")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} cannot be changed")

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self._telling() == other._telling()

    def __hash__(self) -> int:
        return hash((type(self), *self._telling()))

    def _telling(self) -> tuple[Any, ...]:
        return tuple(self.__dict__[name] for name in self._fields if name not in self._aside)

    def __repr__(self) -> str:
        shown = (f"{n}={getattr(self, n)!r}" for n in self._fields if n not in self._hidden)
        return f"{type(self).__name__}({', '.join(shown)})"


@dataclass_transform(frozen_default=True)
class Record(Value):
    """A Value whose fields, as type checkers know, can be given by position."""


_V = TypeVar("_V", bound=Value)


def replace(value: _V, **changes: Any) -> _V:
    """Return a copy of `value` with other values in some fields."""
    return value.replaced(**changes)
