from typing import Self

from rpmem.fabric import contract
from rpmem.fabric.verbs.fabric import Fabric
from rpmem.memory.region import Region

class Device:
    name: str
    flushes: bool
    on_demand: bool
    queue_limit: int
    completion_limit: int
    pair_limit: int
    reads_in: int
    reads_out: int

class Domain:
    fabric: Fabric
    device: Device
    def __new__(cls, fabric: contract.Fabric) -> Self: ...
    def close(self) -> None: ...

class Memory:
    key: int
    address: int
    flushes: bool
    on_demand: bool
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
    def close(self) -> None: ...

def devices() -> list[dict[str, object]]: ...
