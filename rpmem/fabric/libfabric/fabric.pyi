from typing import Self

from rpmem.fabric.shared.connecting import Connector

class Fabric(Connector):
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
    def bypasses(self) -> bool: ...
    @property
    def lane_limit(self) -> int: ...
    @property
    def description(self) -> dict[str, object]: ...
    def close(self) -> None: ...

def version() -> tuple[int, int]: ...
