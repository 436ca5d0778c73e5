from rpmem.wire.lane import Lane

KINDS: tuple[str, ...]

class RecordingLane(Lane):
    def __init__(
        self,
        size: int,
        *,
        delivers: bool = False,
        pmdk: bool = False,
        base: int = 0,
        message_size: int = 65536,
        operation_limit: int = 1 << 30,
    ) -> None: ...
    def withhold(
        self, *, posts: bool = False, answers: bool = False, only_writes: bool = False
    ) -> None: ...
    def refuse(self, status: int) -> None: ...
    def volunteer(self) -> None: ...
    def read_pool(self, offset: int, length: int) -> bytes: ...
    def posts(self) -> list[tuple[str, int, int, int, int]]: ...
    @property
    def messages(self) -> int: ...
