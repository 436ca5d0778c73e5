"""The base of the fabrics' lanes: message buffers and the state of the connection."""

import errno
import os

from libc.stdint cimport uint32_t
from libc.stdlib cimport free
from posix.stdlib cimport posix_memalign

from rpmem.errors import FabricFailure
from rpmem.fabric.shared.failures import failure
from rpmem.wire.lane cimport LANE_LOST, LANE_UP

cdef enum:
    PAGE = 4096


cdef class ConnectedLane(Lane):
    """A lane that owns its buffers, connected or about to be."""

    def __cinit__(self, *_, **__):
        if type(self) is ConnectedLane:
            raise TypeError("only fabrics have lanes")

    def __dealloc__(self):
        # The fabric has closed it by now: nothing can reach the buffers any more.
        free(self.area)

    cdef size_t lay_out(self, tuple send, tuple receive, uint32_t scratch) except 0:
        cdef void *area = NULL
        cdef size_t total
        self.c.send_slots, self.c.send_size = send
        self.c.receive_slots, self.c.receive_size = receive
        self.c.scratch_size = scratch
        total = (<size_t> self.c.send_slots * self.c.send_size
                 + <size_t> self.c.receive_slots * self.c.receive_size + scratch)
        if posix_memalign(&area, PAGE, total):
            raise MemoryError(f"no memory for a lane's {total} bytes of message buffers")
        self.area = <char *> area
        self.c.send_area = self.area
        self.c.receive_area = self.area + <size_t> self.c.send_slots * self.c.send_size
        self.c.scratch = self.area + total - scratch
        return total

    cdef ended(self):
        self.connected = False
        if self.c.state == LANE_UP:
            self.c.state = LANE_LOST
        if self.buffers is not None:
            self.buffers.close()
            self.buffers = None

    def post_receives(self):
        """Post every receive buffer."""
        cdef uint32_t slot
        for slot in range(self.c.receive_slots):
            if self.c.ops.receive(self.c, slot) < 0:
                number = self.c.detail or errno.ENOBUFS
                raise failure(f"a receive buffer of lane {self.c.index} was not posted",
                              os.strerror(number), number, None, FabricFailure)
