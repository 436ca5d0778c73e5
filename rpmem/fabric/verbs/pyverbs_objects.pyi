from collections.abc import Iterable
from typing import Any

from rpmem.fabric.verbs.memory import Device

class SharedDomain:
    domain: Any
    pointer: int
    device: Device
    def __init__(self, domain: Any, memory: Iterable[Any] = ()) -> None: ...
    def key_of(self, address: int, length: int) -> int | None: ...

def share(given: Any) -> SharedDomain: ...
