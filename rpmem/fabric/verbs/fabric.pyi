from typing import Self

from rpmem.fabric.shared.connecting import Connector
from rpmem.fabric.verbs.memory import Device

class Fabric(Connector):
    device: Device
    shared: object
    def __new__(
        cls,
        provider: str,
        host: str,
        port: int = 0,
        *,
        listen: bool = False,
        queue_size: int = 0,
        shared: object = None,
    ) -> Self: ...
    @property
    def queue_size(self) -> int: ...
    @property
    def paces(self) -> bool: ...
    @property
    def pins(self) -> bool: ...
    @property
    def commits(self) -> bool: ...
    @property
    def flushes(self) -> bool: ...
    @property
    def bypasses(self) -> bool: ...
    @property
    def lane_limit(self) -> int: ...
    @property
    def description(self) -> dict[str, object]: ...
    def close(self) -> None: ...
