"""Small attributes of arrays and of a pool: a mapping whose changes are durable at once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, MutableMapping
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
    store : callable
        Replaces them, durably.
    """

    def __init__(self, load: Callable[[], str], store: Callable[[str], None]) -> None:
        self._load = load
        self._store = store

    def __getitem__(self, key: str) -> Any:
        return self._values()[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self.update({key: value})

    def __delitem__(self, key: str) -> None:
        values = self._values()
        del values[key]
        self._store(attrs_text(values))

    def __iter__(self) -> Iterator[str]:
        return iter(self._values())

    def __len__(self) -> int:
        return len(self._values())

    def update(self, *others: Any, **more: Any) -> None:
        """Take over attributes from mappings, pairs and keywords, in one change."""
        values = self._values()
        values.update(*others, **more)
        self._store(attrs_text(values))

    def clear(self) -> None:
        """Remove all, in one change."""
        self._store(attrs_text({}))

    def __repr__(self) -> str:
        return f"<attributes {self._values()}>"

    def _values(self) -> dict[str, Any]:
        try:
            values = json.loads(self._load())
            if isinstance(values, Mapping):
                return dict(values)
        except (ValueError, RecursionError):
            pass
        raise CatalogueCorrupt(
            "the catalogue has a good checksum, but attributes that make no sense",
            hint="It was written by another version of rpmem, or by something else",
        )
