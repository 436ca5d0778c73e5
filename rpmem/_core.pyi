from collections.abc import Callable
from typing import Any, Protocol, Self

from typing_extensions import Buffer

from rpmem.errors import RpmemError
from rpmem.memory.region import Region
from rpmem.wire.lane import Lane

class _Registered(Protocol):
    @property
    def handle(self) -> int: ...
    def close(self) -> None: ...

class _Owner(Protocol):
    def explain(self, fault: int, refusal: int, detail: int) -> RpmemError: ...

class LaneGroup:
    owner: _Owner
    step: str
    def __new__(
        cls,
        lanes: list[Lane],
        step: str,
        pool: Region,
        *,
        message_size: int,
        window: int,
        owner: _Owner,
        copy_limit: int = ...,
        put_limit: int = ...,
        put_most: int | None = None,
        remote_base: int = 0,
        dialect: str = "native",
        staging: int = 0,
    ) -> Self: ...
    def __len__(self) -> int: ...
    def abort(self) -> None: ...
    @property
    def failed(self) -> bool: ...
    def close(self) -> None: ...

class Replicator:
    size: int
    floor: int
    def __new__(
        cls,
        region: Region,
        groups: list[LaneGroup],
        *,
        local: bool,
        floor: int = 4096,
        size: int | None = None,
        spin: float = ...,
        timeout: float = 30.0,
    ) -> Self: ...
    def persist(self, x: Any = None, *, relaxed: bool = False, lane: int | None = None) -> None: ...
    def deep_persist(self, x: Any = None, *, lane: int | None = None) -> None: ...
    def flush(self, x: Any = None, *, relaxed: bool = False, lane: int | None = None) -> None: ...
    def drain(self, *, lane: int | None = None) -> None: ...
    def drain_rest(self) -> None: ...
    def put(self, offset: int, word: Buffer) -> None: ...
    def persist_many(
        self, ranges: Any, *, relaxed: bool = False, lane: int | None = None
    ) -> None: ...
    def read(
        self,
        index: int,
        buffer: Buffer,
        offset: int,
        *,
        lane: int | None = None,
        register: Callable[[int, int], _Registered | None] | None = None,
    ) -> None: ...
    def ranges_of(self, x: Any, *, floor: int = 0) -> list[tuple[int, int]]: ...
    @property
    def lanes(self) -> int: ...
    @property
    def calls(self) -> int: ...
    def check_usable(self) -> None: ...
    def take_unsettled(self) -> list[tuple[int, int]]: ...
    def close(self, what: str = "the pool is closed") -> None: ...
