from typing import Protocol, Self

from rpmem.errors import RpmemError
from rpmem.memory.region import Region
from rpmem.wire.lane import Lane

class _Owner(Protocol):
    @property
    def target(self) -> object: ...
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
        put_limit: int | None = None,
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
