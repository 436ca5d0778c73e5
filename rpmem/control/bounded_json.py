"""JSON from the other side: one object, with limits on everything that could harm a parser."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from rpmem.errors import MalformedMessage

# A 64-bit integer has at most 20 digits; Python would parse thousands, in quadratic time.
_LONGEST_NUMBER = 20


def parse_object(payload: bytes | bytearray) -> dict[str, Any]:
    """Parse `payload` as one JSON object.

    The caller has limited the size. Invalid UTF-8, anything but an object, nesting too deep for the
    parser, numbers of more than 20 characters, ``NaN`` and infinities, and objects with duplicate
    keys are refused.

    Raises
    ------
    MalformedMessage
    """
    try:
        value = json.loads(
            payload.decode("utf-8"),
            parse_int=_integer,
            parse_float=_real,
            parse_constant=_constant,
            object_pairs_hook=_object,
        )
    except RecursionError:
        raise MalformedMessage("the payload is nested too deeply") from None
    except UnicodeDecodeError as error:
        raise MalformedMessage(f"the payload is not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise MalformedMessage(
            f"the payload is not JSON: {error.msg} at character {error.pos}"
        ) from None
    if not isinstance(value, dict):
        raise MalformedMessage("the payload is not a JSON object")
    return value


def format_object(value: dict[str, Any]) -> bytes:
    """Return `value` as compact UTF-8 JSON."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode(
        "utf-8"
    )


def _integer(digits: str) -> int:
    _check_length(digits)
    return int(digits)


def _real(digits: str) -> float:
    _check_length(digits)
    return float(digits)


def _check_length(digits: str) -> None:
    if len(digits) > _LONGEST_NUMBER:
        raise MalformedMessage(f"the payload holds a number of {len(digits)} characters")


def _constant(name: str) -> NoReturn:
    raise MalformedMessage(f"the payload holds {name}, which is not JSON")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise MalformedMessage("the payload has an object with the same key twice")
    return value
