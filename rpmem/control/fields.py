"""Rules for single fields, and records made from them.

A record is a `Value` whose fields each carry a `Rule`. The same rule checks values from our own
code (violations are `UsageError`) and values from the other side (`MalformedMessage`), and
translates between Python and JSON.
"""

from __future__ import annotations

import base64
import operator
import re
from collections.abc import Collection
from typing import Any, ClassVar, Final, Generic, NamedTuple, Self, TypeVar, dataclass_transform

from rpmem.base.printable import printable
from rpmem.base.values import Value
from rpmem.errors import MalformedMessage, UsageError

_TOKEN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:;+-]{0,63}")


class FieldError(ValueError):
    """A value breaks a rule; the text has no subject, as the field's name precedes it."""


class Rule:
    """The values that a field may hold. This one accepts none: see the subclasses."""

    def check(self, value: Any) -> Any:
        """Return `value` in its canonical form or raise `FieldError`."""
        raise FieldError(f"cannot hold {type(value).__name__}")

    def to_json(self, value: Any) -> Any:
        """Translate a checked value to JSON."""
        return value

    def from_json(self, value: Any) -> Any:
        """Translate and check a value from the other side."""
        return self.check(value)


class Integer(Rule):
    """An integer between two bounds, both included."""

    def __init__(self, low: int, high: int) -> None:
        self.low = low
        self.high = high

    def check(self, value: Any) -> int:  # noqa: D102
        if isinstance(value, bool):
            raise FieldError("is a boolean, not an integer")
        try:
            number = operator.index(value)
        except TypeError:
            raise FieldError(f"is of type {type(value).__name__}, not an integer") from None
        if not self.low <= number <= self.high:
            raise FieldError(f"is {number}, not in {self.low}..{self.high}")
        return number


class Boolean(Rule):
    """True or false, and nothing that merely resembles them."""

    def check(self, value: Any) -> bool:  # noqa: D102
        if not isinstance(value, bool):
            raise FieldError(f"is of type {type(value).__name__}, not a boolean")
        return value


class Text(Rule):
    """Text for people: incoming text is made safe to print, outgoing text is cut to fit."""

    def __init__(self, limit: int) -> None:
        self.limit = limit

    def check(self, value: Any) -> str:  # noqa: D102
        return printable(_string(value), self.limit)

    def from_json(self, value: Any) -> str:  # noqa: D102
        if len(_string(value)) > self.limit:
            raise FieldError(f"has {len(value)} characters, more than {self.limit}")
        return printable(value, self.limit)


class Token(Rule):
    """A short name that programs compare: a provider, a step, an error code."""

    def check(self, value: Any) -> str:  # noqa: D102
        if not _TOKEN.fullmatch(_string(value)):
            raise FieldError(
                f"is {printable(value, 80)!r}, not a name of 1 to 64 letters or digits"
            )
        return str(value)


class Address(Rule):
    """An address of the fabric in text form; empty for the host that ssh reached."""

    def check(self, value: Any) -> str:  # noqa: D102
        text = _string(value)
        if len(text) > 255 or not text.isprintable() or " " in text:
            raise FieldError(f"is {printable(text, 80)!r}, not an address")
        return text


class PoolSetName(Rule):
    """A pool set's name: a file name in UTF-8. Its meaning is up to the target."""

    LIMIT: Final = 4096

    def check(self, value: Any) -> str:  # noqa: D102
        name = _string(value)
        try:
            size = len(name.encode("utf-8"))
        except UnicodeEncodeError:
            raise FieldError("cannot be written in UTF-8") from None
        if not 1 <= size <= self.LIMIT:
            raise FieldError(f"has {size} bytes, not 1..{self.LIMIT}")
        if "\0" in name:
            raise FieldError("contains a NUL character")
        return name


class Binary(Rule):
    """A fixed number of bytes; hexadecimal in JSON."""

    def __init__(self, *sizes: int) -> None:
        self.sizes: Collection[int] = sizes
        self.most = max(sizes)

    def check(self, value: Any) -> bytes:  # noqa: D102
        if not isinstance(value, bytes | bytearray | memoryview):
            raise FieldError(f"is of type {type(value).__name__}, not bytes")
        content = bytes(value)
        if len(content) not in self.sizes:
            raise FieldError(f"has {len(content)} bytes, not {self._wanted()}")
        return content

    def _wanted(self) -> str:
        return " or ".join(map(str, self.sizes))

    def to_json(self, value: bytes) -> str:  # noqa: D102
        return value.hex()

    def from_json(self, value: Any) -> bytes:  # noqa: D102
        # fromhex would skip spaces: limit the text, not only the result.
        if len(_string(value)) > 2 * self.most:
            raise FieldError(f"has {len(value)} characters, more than {2 * self.most}")
        try:
            content = bytes.fromhex(value)
        except ValueError:
            raise FieldError("is not hexadecimal") from None
        return self.check(content)


class Bytes(Binary):
    """As many bytes as two bounds allow, both included; hexadecimal in JSON."""

    def __init__(self, low: int, high: int) -> None:
        self.sizes = range(low, high + 1)
        self.most = high
        self.low = low

    def _wanted(self) -> str:
        return f"{self.low}..{self.most}"


class Base64(Bytes):
    """As many bytes as two bounds allow, both included; base64 in JSON, which is shorter."""

    def to_json(self, value: bytes) -> str:  # noqa: D102
        return base64.b64encode(value).decode("ascii")

    def from_json(self, value: Any) -> bytes:  # noqa: D102
        longest = -(-self.most // 3) * 4
        if len(_string(value)) > longest:
            raise FieldError(f"has {len(value)} characters, more than {longest}")
        try:
            content = base64.b64decode(value, validate=True)
        except ValueError:
            raise FieldError("is not base64") from None
        return self.check(content)


class OrNone(Rule):
    """Another rule, or None."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule

    def check(self, value: Any) -> Any:  # noqa: D102
        return None if value is None else self.rule.check(value)

    def to_json(self, value: Any) -> Any:  # noqa: D102
        return None if value is None else self.rule.to_json(value)

    def from_json(self, value: Any) -> Any:  # noqa: D102
        return None if value is None else self.rule.from_json(value)


class ListOf(Rule):
    """A list of values under one rule; a tuple in Python."""

    def __init__(self, rule: Rule, *, low: int = 0, high: int) -> None:
        self.rule = rule
        self.low = low
        self.high = high

    def check(self, value: Any) -> tuple[Any, ...]:  # noqa: D102
        if not isinstance(value, list | tuple | set | frozenset):
            raise FieldError(f"is of type {type(value).__name__}, not a list")
        self._check_length(len(value))
        return tuple(self.rule.check(item) for item in value)

    def to_json(self, value: tuple[Any, ...]) -> list[Any]:  # noqa: D102
        return [self.rule.to_json(item) for item in value]

    def from_json(self, value: Any) -> tuple[Any, ...]:  # noqa: D102
        if not isinstance(value, list):
            raise FieldError("is not a list")
        self._check_length(len(value))
        return tuple(self.rule.from_json(item) for item in value)

    def _check_length(self, length: int) -> None:
        if not self.low <= length <= self.high:
            raise FieldError(f"has {length} entries, not {self.low}..{self.high}")


class _Field(NamedTuple):
    rule: Rule
    default: Any
    shown: bool


_MISSING: Final = object()


def wire(rule: Rule, *, default: Any = _MISSING, repr: bool = True) -> Any:
    """Declare a record's field; without `default` the other side must send it."""
    return _Field(rule, default, repr)


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(wire,))
class Record(Value):
    """Base of everything with `wire` fields: messages, and parts of messages."""

    _rules: ClassVar[dict[str, Rule]] = {}

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        declared: dict[str, _Field] = {name: vars(cls)[name] for name in cls._fields}
        cls._rules = {name: field.rule for name, field in declared.items()}
        cls._hidden = frozenset(name for name, field in declared.items() if not field.shown)
        cls._defaults = {
            name: field.default for name, field in declared.items() if field.default is not _MISSING
        }

    def __init__(self, **named: Any) -> None:
        super().__init__(**named)
        for name, rule in self._rules.items():
            try:
                self.__dict__[name] = rule.check(self.__dict__[name])
            except FieldError as error:
                raise UsageError(f"{type(self).__name__}.{name} {error}") from None
        if complaint := self.complaint():
            raise UsageError(f"{type(self).__name__} {complaint}")

    def complaint(self) -> str | None:
        """Say how fields that are each valid contradict one another, or return None."""
        return None

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object of this record."""
        return {name: rule.to_json(getattr(self, name)) for name, rule in self._rules.items()}

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Make a record from the other side's JSON; unknown fields are ignored.

        Raises
        ------
        MalformedMessage
        """
        if not isinstance(value, dict):
            raise MalformedMessage(f"{cls.__name__} is not a JSON object")
        known: dict[str, Any] = {}
        for name, rule in cls._rules.items():
            if name in value:
                try:
                    known[name] = rule.from_json(value[name])
                except FieldError as error:
                    raise MalformedMessage(f"{cls.__name__}.{name} {error}") from None
            elif name not in cls._defaults:
                raise MalformedMessage(f"{cls.__name__} lacks the field {name}")
        try:
            return cls(**known)
        except UsageError as error:
            raise MalformedMessage(error.what) from None


_R = TypeVar("_R", bound=Record)


class Nested(Rule, Generic[_R]):
    """A record inside a record."""

    def __init__(self, kind: type[_R]) -> None:
        self.kind = kind

    def check(self, value: Any) -> _R:  # noqa: D102
        if not isinstance(value, self.kind):
            raise FieldError(f"is of type {type(value).__name__}, not {self.kind.__name__}")
        return value

    def to_json(self, value: _R) -> dict[str, Any]:  # noqa: D102
        return value.to_json()

    def from_json(self, value: Any) -> _R:  # noqa: D102
        return self.kind.from_json(value)


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise FieldError(f"is of type {type(value).__name__}, not a string")
    return value
