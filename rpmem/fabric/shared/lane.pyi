from rpmem.wire.lane import Lane

class ConnectedLane(Lane):
    connected: bool
    def post_receives(self) -> None: ...
