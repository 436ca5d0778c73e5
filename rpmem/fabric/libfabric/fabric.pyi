from collections.abc import Callable
from typing import Self

from rpmem.fabric import contract
from rpmem.memory.region import Region
from rpmem.wire.lane import Lane

class Fabric:
    provider: str
    commits: bool
    def __new__(
        cls,
        provider: str,
        host: str,
        port: int = 0,
        *,
        listen: bool = False,
        queue_size: int = 0,
    ) -> Self: ...
    @property
    def pins(self) -> bool: ...
    @property
    def paces(self) -> bool: ...
    @property
    def flushes(self) -> bool: ...
    @property
    def lane_limit(self) -> int: ...
    @property
    def description(self) -> dict[str, object]: ...
    def await_lanes(
        self, lanes: list[contract.Lane], timeout: float, check: Callable[[], None] | None = None
    ) -> None: ...
    def close(self) -> None: ...

class Domain:
    fabric: Fabric
    def __new__(cls, fabric: contract.Fabric) -> Self: ...
    def close(self) -> None: ...

class Memory:
    key: int
    address: int
    def __new__(
        cls,
        domain: contract.Domain,
        address: int,
        length: int,
        *,
        remote: bool = False,
        source: bool = False,
        persistent: bool = False,
        key: int = 0,
        keep: Region | None = None,
    ) -> Self: ...
    @property
    def handle(self) -> int: ...
    @property
    def flushes(self) -> bool: ...
    def close(self) -> None: ...

class Queue:
    def __new__(cls, domain: contract.Domain, size: int = 0, *, answers: bool = True) -> Self: ...
    def close(self) -> None: ...

class FabricLane(Lane):
    connected: bool
    def __new__(
        cls,
        domain: contract.Domain,
        queue: contract.Queue,
        index: int,
        send: tuple[int, int],
        receive: tuple[int, int],
        pool: contract.Memory | None = None,
        request: contract.Request | None = None,
    ) -> Self: ...
    @property
    def key(self) -> int: ...
    def aim(self, address: int, key: int, size: int) -> None: ...
    def connect(self, data: bytes) -> None: ...
    def post_receives(self) -> None: ...
    def accept(self) -> None: ...

class Request:
    data: bytes
    peer: tuple[str, int]
    def reject(self) -> None: ...

class Listener:
    fabric: Fabric
    port: int
    def __new__(cls, fabric: contract.Fabric, *, lanes: int = 0, guarded: bool = True) -> Self: ...
    def next(
        self, timeout: float, lanes: dict[int, contract.Lane]
    ) -> Request | FabricLane | None: ...
    def close(self) -> None: ...

def some_loopback() -> str: ...
def version() -> tuple[int, int]: ...
