"""A lane over one connected socket, with its buffers."""

import os
import socket
import struct

cimport cython
from libc.stdint cimport uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport calloc, free, malloc

from rpmem.base.fork cimport fork_generation, is_copy
from rpmem.fabric.shared.lane cimport ConnectedLane
from rpmem.fabric.stream.handshake cimport Handshake
from rpmem.fabric.stream.memory cimport Domain
from rpmem.fabric.stream.ops cimport STREAM_OPS, queue_add, queue_remove
from rpmem.fabric.stream.queue cimport Queue
from rpmem.fabric.stream.structs cimport INBOX, INLINE, stream_lane_t
from rpmem.fabric.stream.transport cimport NAP_MS, plain_transport

from rpmem.errors import ConnectFailed
from rpmem.fabric.shared.failures import failure
from rpmem.fabric.stream.call import UNANSWERED_MS, prepare

cdef enum:
    SCRATCH = 4096
    WHOLE = 1 << 20              # most bytes of a WRITE or READ
    PIECE = 1 << 19              # longer ranges go in such pieces


def _is_near(connection):
    """Whether the other side of a connection is on this machine."""
    if connection.family == socket.AF_UNIX:
        return True
    try:
        return connection.getsockname()[0] == connection.getpeername()[0]
    except OSError:
        return False  # it has hung up


@cython.no_gc_clear  # its members are needed until it is closed
cdef class FabricLane(ConnectedLane):
    """One socket with its buffers. Its parameters are explained in `rpmem.fabric.contract`."""

    def __cinit__(self, Domain domain not None, Queue queue not None, uint32_t index, tuple send,
                  tuple receive, object pool=None, object request=None):
        self.born = fork_generation()
        self.domain = domain
        self.queue = queue
        self.request = request
        self.exposed = domain.exposed
        self.own = <stream_lane_t *> calloc(1, sizeof(stream_lane_t))
        if self.own == NULL:
            raise MemoryError("no memory for a lane")
        self.own.transport.descriptor = -1
        self.c = &self.own.base
        self.c.ops = &STREAM_OPS
        self.c.queue = &queue.c.base
        self.c.index = index
        self.c.operation_limit = WHOLE
        self.c.piece = PIECE
        self.c.inline_limit = INLINE
        self.c.delivers = self.c.words = True
        self.lay_out(send, receive, SCRATCH)
        self.own.inbox = <char *> malloc(INBOX)
        self.own.spill = <char *> malloc(INLINE)
        self.own.posted = <uint32_t *> calloc(self.c.receive_slots, sizeof(uint32_t))
        self.c.messages = <const char **> calloc(self.c.receive_slots, sizeof(char *))
        if (self.own.inbox == NULL or self.own.spill == NULL or self.own.posted == NULL
                or self.c.messages == NULL):
            raise MemoryError("no memory for a lane")
        if self.exposed is not None:
            self.own.exposed = self.exposed.base
            self.own.exposed_size = self.exposed.length

    def __dealloc__(self):
        self.close()
        if self.own != NULL:
            free(self.own.inbox)
            free(self.own.spill)
            free(self.own.posted)
            free(<void *> self.c.messages)
            free(self.own)

    @property
    def key(self):
        """Identifies the lane among those that are being connected."""
        return <uintptr_t> self.own

    def aim(self, uint64_t address, uint64_t key, uint64_t size):
        """Set the size of the memory that one-sided operations on this lane reach."""
        self.c.remote_size = size

    cdef int take_socket(self, int descriptor, Handshake secret) except -1:
        """Carry the lane over a connected socket, which belongs to it from now on."""
        cdef int rc
        self.secret = secret
        self.own.transport = plain_transport(descriptor)
        with socket.socket(fileno=os.dup(descriptor)) as connection:
            self.own.near = _is_near(connection)
            connection.setblocking(True)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO,
                                  struct.pack("@ll", 0, 1000 * NAP_MS))
        if secret is not None:
            self.own.transport = secret.transport()
        rc = queue_add(&self.queue.c, self.own)
        if rc < 0:
            raise failure(f"lane {self.c.index} cannot be waited for", os.strerror(-rc), -rc)
        return 0

    def connect(self, bytes data):
        """Start connecting, with `data` as proof; `Fabric.await_lanes` waits for it."""
        try:
            self.call = self.domain.fabric.new_call(self.c.index, data)
        except OSError as error:
            raise failure(f"lane {self.c.index}", error.strerror or str(error), error.errno,
                          None, ConnectFailed) from error
        self.domain.fabric.await_answer(self)

    def connect_over(self, int descriptor):
        """Go on with the socket of a call that was answered."""
        self.take_socket(descriptor, self.call.secret)
        self.call = None

    def accept(self):
        """Accept the request this lane was made for."""
        cdef Handshake secret = self.request.secret
        answer = self.request.answer
        connection = socket.socket(fileno=self.request.take())
        self.request = None
        try:
            prepare(connection, UNANSWERED_MS)
            # A new connection has room for so few bytes.
            if secret is None:
                connection.send(answer, socket.MSG_NOSIGNAL)
            else:
                secret.send(answer)
        except OSError as error:
            connection.close()
            raise failure(f"lane {self.c.index}", error.strerror or str(error), error.errno,
                          None, ConnectFailed) from error
        self.take_socket(connection.detach(), secret)
        self.connected = True
        self.domain.fabric.was_accepted(self)

    def hang_up(self):
        """Tell the other side that the lane has ended, from the thread that polls its queue."""
        if self.connected and self.own.transport.descriptor >= 0:
            self.own.transport.shut(&self.own.transport)
            self.connected = False

    cpdef close(self):
        """Disconnect; the queue must not be polled meanwhile."""
        if self.own == NULL:
            return
        if self.call is not None:
            self.domain.fabric.forget(self)
            self.call.close()
            self.call = None
        if self.request is not None:
            self.request.reject()
            self.request = None
        if self.own.transport.descriptor >= 0:
            if not is_copy(self.born):
                queue_remove(&self.queue.c, self.own)
                self.own.transport.shut(&self.own.transport)
            os.close(self.own.transport.descriptor)
            self.own.transport.descriptor = -1
        self.secret = None
        self.ended()
