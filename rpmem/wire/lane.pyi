from typing import Final

LANE_UP: Final[int]
LANE_AGAIN: Final[int]
LANE_LOST: Final[int]
LANE_REFUSED: Final[int]
LANE_GARBLED: Final[int]
LANE_EXPIRED: Final[int]
LANE_ABORTED: Final[int]
LANE_INTERRUPTED: Final[int]

POST_SIGNAL: Final[int]
POST_COMMIT: Final[int]
POST_INLINE: Final[int]
POST_MORE: Final[int]
POST_DELIVERED: Final[int]
POST_WORDS: Final[int]

class Lane:
    @property
    def index(self) -> int: ...
    @property
    def fault(self) -> tuple[int, int]: ...
    def hang_up(self) -> None: ...
    def close(self) -> None: ...
