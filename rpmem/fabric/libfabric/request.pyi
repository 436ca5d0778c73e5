class Request:
    data: bytes
    peer: tuple[str, int]
    def reject(self) -> None: ...
