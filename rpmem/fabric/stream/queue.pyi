from typing import Self

from rpmem.fabric import contract

class Queue:
    def __new__(cls, domain: contract.Domain, size: int = 0, *, answers: bool = True) -> Self: ...
    def close(self) -> None: ...
