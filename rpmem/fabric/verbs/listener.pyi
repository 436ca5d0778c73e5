from typing import Self

from rpmem.fabric import contract
from rpmem.fabric.shared.connecting import Acceptor
from rpmem.fabric.verbs.fabric import Fabric

class Listener(Acceptor):
    @property
    def fabric(self) -> Fabric: ...
    def __new__(cls, fabric: contract.Fabric, *, lanes: int = 0) -> Self: ...
