from collections.abc import Iterable

from rpmem.fabric.verbs.memory import Device

class SharedDomain:
    domain: object
    pointer: int
    device: Device
    def __init__(self, domain: object, memory: Iterable[object] = ()) -> None: ...
    def key_of(self, address: int, length: int) -> int | None: ...

def share(given: object) -> SharedDomain: ...
