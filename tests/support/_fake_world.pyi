from rpmem.memory.region import Region
from rpmemd.service import Service

FAULT_NONE: int
FAULT_CUT: int
FAULT_CUT_ALL: int
FAULT_SILENCE: int
FAULT_DROP_MESSAGE: int
FAULT_DROP_REPLY: int
FAULT_DOUBLE_MESSAGE: int
FAULT_GARBLE: int
FAULT_REFUSE: int
FAULT_INTERRUPT: int
FAULT_REFUSE_POST: int
FAULT_SILENT_INTERRUPT: int
FAULTS: int

class Target:
    world: World
    region: Region
    image: bytes
    faults: set[int]
    def __init__(
        self,
        world: World,
        region: Region,
        *,
        medium: str,
        reaches_domain: bool = False,
        forgets: bool = False,
    ) -> None: ...
    def serve_with(self, service: Service) -> None: ...
    def end(self) -> None: ...

class World:
    targets: list[Target]
    clock_ns: int
    posts: int
    complaint: str | None
    def __init__(self, seed: int, **wishes: int) -> None: ...
    def __enter__(self) -> World: ...
    def __exit__(self, *_: object) -> None: ...
