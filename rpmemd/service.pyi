from collections.abc import Callable
from typing import Final, Protocol, Self

from rpmem.errors import RpmemError
from rpmem.memory.region import Region
from rpmem.wire.lane import Lane

LOST: Final[str]
DROP_REASONS: Final[dict[int, str]]

def error_for(reason: str, text: str, number: int) -> RpmemError: ...

class _Queue(Protocol):
    def close(self) -> None: ...

class Service:
    def __new__(
        cls,
        region: Region,
        size: int,
        floor: int,
        lanes: list[Lane],
        queues: list[_Queue],
        *,
        spin_s: float,
        on_drop: Callable[[int, str, int], None],
        dialect: str = "native",
        base: int = 0,
        staging: Region | None = None,
        read_floor: int = 0,
    ) -> Self: ...
    def run(self, thread: int) -> None: ...
    def stop(self) -> None: ...
    @property
    def dropped(self) -> dict[int, str]: ...
    @property
    def messages(self) -> int: ...
    @property
    def flushes(self) -> int: ...
