from typing import Final

MESSAGE_UPDATE: Final[int]
MESSAGE_FETCH: Final[int]
MESSAGE_REPLY: Final[int]
UPDATE_ANSWER: Final[int]
UPDATE_DEEP: Final[int]
WRITTEN_SHIFT: Final[int]
REPLY_DONE: Final[int]
REPLY_FLUSH_FAILED: Final[int]
REPLY_BAD_RANGE: Final[int]
REPLY_BAD_MESSAGE: Final[int]
