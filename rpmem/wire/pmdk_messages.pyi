from typing import Final

PMDK_FLUSH_WRITE: Final[int]
PMDK_DEEP_PERSIST: Final[int]
PMDK_PERSIST_SEND: Final[int]
PMDK_MODE_MASK: Final[int]
