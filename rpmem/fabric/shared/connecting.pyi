from collections.abc import Callable, Sequence

from rpmem.fabric import contract

class Connector:
    provider: str
    host: str
    @property
    def encrypts(self) -> bool: ...
    def secure(self, nonce: bytes, proofs: Sequence[bytes]) -> None: ...
    def await_lanes(
        self, lanes: list[contract.Lane], timeout: float, check: Callable[[], None] | None = None
    ) -> None: ...

class Acceptor:
    port: int
    @property
    def fabric(self) -> contract.Fabric: ...
    def next(
        self, timeout: float, lanes: dict[int, contract.Lane]
    ) -> contract.Request | contract.Lane | None: ...
    def close(self) -> None: ...
