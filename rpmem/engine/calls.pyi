from collections.abc import Callable
from typing import Any

from typing_extensions import Buffer

from rpmem._core import Replicator, _Registered

class Calls:
    def through(
        self,
        core: Replicator | None,
        index: int = 0,
        *,
        lent: bool = False,
        register: Callable[[int, int], _Registered | None] | None = None,
        first: int = 0,
    ) -> None: ...
    def refusal(self, *, lent: bool) -> Exception: ...
    def persist(
        self, offset: int, length: int, lane: int | None = None, relaxed: bool = False
    ) -> None: ...
    def deep_persist(self, offset: int, length: int, lane: int | None = None) -> None: ...
    def flush(
        self, offset: int, length: int, lane: int | None = None, relaxed: bool = False
    ) -> None: ...
    def drain(self, lane: int | None = None) -> None: ...
    def persist_many(self, ranges: Any, relaxed: bool = False, lane: int | None = None) -> None: ...
    def read(self, buffer: Buffer, offset: int, lane: int | None = None) -> None: ...
