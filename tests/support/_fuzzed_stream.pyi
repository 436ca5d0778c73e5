from typing import Final

PRELUDE: int
KINDS: Final[tuple[str, ...]]
NONCE: bytes
TOKENS: list[bytes]

def feed(kind: int, data: bytes) -> str | None: ...
def drive(kind: str, words: list[str], planted: bool) -> int: ...
