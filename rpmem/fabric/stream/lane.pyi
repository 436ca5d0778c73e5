from typing import Self

from rpmem.fabric import contract
from rpmem.fabric.shared.lane import ConnectedLane
from rpmem.fabric.stream.call import Call
from rpmem.fabric.stream.pairs import Inherited

class FabricLane(ConnectedLane):
    call: Call | Inherited | None
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
    def connect_over(self, descriptor: int) -> None: ...
    def accept(self) -> None: ...
