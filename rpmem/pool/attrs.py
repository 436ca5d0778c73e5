"""Small attributes of arrays and of a pool: a mapping whose changes are durable at once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, MutableMapping
from typing import Any

from rpmem.errors import CatalogueCorrupt
from rpmem.pool.catalogue.records import attrs_text


class Attrs(MutableMapping[str, Any]):
    """Attributes by name: JSON values, 64 KiB together.

    Each change is durable here and on every replica when it returns, and replaces all attributes
    at once; `update` and `clear` are one change. A value that is changed in place is not stored.

    Parameters
    ----------
    load : callable
        Returns the attributes as JSON.
    change : callable
        Takes a function from attributes to attributes, both as JSON, and replaces those that there
        are by what it returns, durably; no other thread changes them meanwhile.
    """

    def __init__(
        self, load: Callable[[], str], change: Callable[[Callable[[str], str]], None]
    ) -> None:
        self._load = load
        self._change = change

    def __getitem__(self, key: str) -> Any:
        return _parsed(self._load())[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self.update({key: value})

    def __delitem__(self, key: str) -> None:
        def without(text: str) -> str:
            values = _parsed(text)
            del values[key]
            return attrs_text(values)

        self._change(without)

    def __iter__(self) -> Iterator[str]:
        return iter(_parsed(self._load()))

    def __len__(self) -> int:
        return len(_parsed(self._load()))

    def update(self, *others: Any, **more: Any) -> None:
        """Take over attributes from mappings, pairs and keywords, in one change."""
        new = dict(*others, **more)
        self._change(lambda text: attrs_text(_parsed(text) | new))

    def clear(self) -> None:
        """Remove all, in one change."""
        self._change(lambda _: attrs_text({}))

    def __repr__(self) -> str:
        return f"<attributes {_parsed(self._load())}>"


def _parsed(text: str) -> dict[str, Any]:
    try:
        values = json.loads(text)
        if not isinstance(values, dict):
            raise ValueError(f"they are {values!r}")
    except (ValueError, RecursionError) as error:
        raise CatalogueCorrupt(
            f"the catalogue has a good checksum, but attributes that make no sense: {error}",
            hint="It was written by another version of rpmem, or by something else",
        ) from error
    return values
