"""The base of every fabric's lane objects."""


cdef class Lane:
    """A connected lane.

    Fabrics derive from it and own the struct that ``c`` points to. Nothing here is thread-safe: a
    lane belongs to one call at a time.
    """

    cpdef close(self):
        """Disconnect and free the lane's resources; idempotent."""

    def hang_up(self):
        """Tell the other side that the lane has ended, from the thread that polls its queue."""

    @property
    def index(self):
        """The lane's number in its session."""
        return self.c.index if self.c != NULL else -1

    @property
    def fault(self):
        """``(state, detail)``: state 0 while the lane is up, else the fault that ended it."""
        if self.c == NULL:
            return (LANE_LOST, 0)
        return (self.c.state, self.c.detail)
