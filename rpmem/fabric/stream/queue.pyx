"""The queue of lanes over byte streams: a bell that ends its waits, and an epoll for many lanes."""

import os
import select

from libc.stdlib cimport free

from rpmem.base.fork cimport fork_generation
from rpmem.fabric.stream.memory cimport Domain
from rpmem.fabric.stream.ops cimport STREAM_OPS, queue_ring
from rpmem.wire.lane cimport WATCH_POSTS, WATCH_RECEIVES

from rpmem.fabric.shared.failures import failure


cdef class Queue:
    """Lanes that are polled or slept on together; its `size` is of no importance here."""

    def __cinit__(self, Domain domain not None, size_t size=0, *, bint answers=True):
        self.born = fork_generation()
        self.domain = domain
        self.c.base.ops = &STREAM_OPS
        self.c.base.watch = WATCH_RECEIVES if answers else WATCH_POSTS
        self.c.base.spins = self.c.base.calls = True
        self.c.epoll = self.c.bell = -1
        try:
            self.c.bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            poll = select.epoll()
            self.c.epoll = os.dup(poll.fileno())
            poll.close()
            number = -queue_ring(&self.c)
            if number:
                raise OSError(number, os.strerror(number))
        except OSError as error:
            self.close()
            raise failure("a queue for lanes", os.strerror(error.errno), error.errno) from error

    def __dealloc__(self):
        self.close()
        free(self.c.lanes)

    cpdef close(self):
        """Free the queue; its lanes must be closed first."""
        if self.c.epoll >= 0:
            os.close(self.c.epoll)
        if self.c.bell >= 0:
            os.close(self.c.bell)
        self.c.epoll = self.c.bell = -1
