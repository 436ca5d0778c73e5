from typing import Self

from rpmem.fabric import contract
from rpmem.fabric.libfabric.fabric import Fabric
from rpmem.fabric.shared.connecting import Acceptor

class Listener(Acceptor):
    @property
    def fabric(self) -> Fabric: ...
    def __new__(cls, fabric: contract.Fabric, *, lanes: int = 0, guarded: bool = True) -> Self: ...

def some_loopback() -> str: ...
