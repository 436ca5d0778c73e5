from typing import Self

from rpmem.fabric import contract
from rpmem.memory.region import Region

class Domain:
    fabric: contract.Fabric
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
