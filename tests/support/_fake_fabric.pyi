from typing import Any

from rpmem.fabric.shared.connecting import Acceptor, Connector
from rpmem.fabric.shared.lane import ConnectedLane
from tests.support._fake_world import Target, World

class Fabric(Connector):
    world: World
    target: Target | None
    def __init__(
        self,
        provider: str,
        host: str,
        port: int = 0,
        *,
        listen: bool = False,
        queue_size: int = 0,
    ) -> None: ...
    @property
    def pins(self) -> bool: ...
    @property
    def paces(self) -> bool: ...
    @property
    def commits(self) -> bool: ...
    @property
    def flushes(self) -> bool: ...
    @property
    def bypasses(self) -> bool: ...
    @property
    def lane_limit(self) -> int: ...
    @property
    def description(self) -> dict[str, Any]: ...
    def close(self) -> None: ...

class Domain:
    fabric: Fabric
    def __init__(self, fabric: Fabric) -> None: ...
    def close(self) -> None: ...

class Memory:
    key: int
    address: int
    def __init__(
        self,
        domain: Domain,
        address: int,
        length: int,
        *,
        remote: bool = False,
        source: bool = False,
        persistent: bool = False,
        key: int = 0,
        keep: Any = None,
    ) -> None: ...
    @property
    def handle(self) -> int: ...
    @property
    def flushes(self) -> bool: ...
    def close(self) -> None: ...

class Queue:
    domain: Domain
    def __init__(self, domain: Domain, size: int = 0, *, answers: bool = True) -> None: ...
    def close(self) -> None: ...

class FabricLane(ConnectedLane):
    queue: Queue
    fabric: Fabric
    request: Request | None
    def __init__(
        self,
        domain: Domain,
        queue: Queue,
        index: int,
        send: tuple[int, int],
        receive: tuple[int, int],
        pool: Memory | None = None,
        request: Request | None = None,
    ) -> None: ...
    @property
    def key(self) -> int: ...
    def aim(self, address: int, key: int, size: int) -> None: ...
    def connect(self, data: bytes) -> None: ...
    def accept(self) -> None: ...
    def close(self) -> None: ...

class Request:
    lane: FabricLane
    data: bytes
    peer: tuple[str, int]
    def __init__(self, lane: FabricLane, data: bytes) -> None: ...
    def reject(self) -> None: ...

class Listener(Acceptor):
    def __init__(self, fabric: Fabric, *, lanes: int = 0) -> None: ...
