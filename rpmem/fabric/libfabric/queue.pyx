"""The queue for completions of libfabric: fi_cq(3)."""

from libc.string cimport memset

from rpmem.base.fork cimport fork_generation, is_copy
from rpmem.fabric.libfabric.failures cimport must
from rpmem.fabric.libfabric.fi cimport *
from rpmem.fabric.libfabric.ops cimport FI_OPS
from rpmem.wire.lane cimport WATCH_POSTS, WATCH_RECEIVES

bind_libfabric()

# Providers with their own progress threads: polling only takes CPU time from them.
NEVER_SPUN = frozenset({"sockets"})

# Up to libfabric 1.x, `tcp` makes three system calls for every completion in a queue that can be
# slept on, but wakes such a queue for any byte of its lanes. So completions go to a queue without a
# wait object, and the other one, which stays empty, is the bell.
SPLIT = frozenset({"tcp"}) if fi_version() >> 16 == 1 else frozenset()


cdef class Queue:
    """Receives completions: one per lane (initiator), one per service thread (target).

    It holds `size` completions; 0: the provider's default. Most waits are for messages if `answers`
    is true, else for the completion of one-sided posts.
    """

    def __cinit__(self, Domain domain not None, size_t size=0, *, bint answers=True):
        provider = domain.fabric.provider
        self.born = fork_generation()
        self.domain = domain
        self.c.descriptor = -1
        self.c.fabric = domain.fabric.fabric
        self.c.base.ops = &FI_OPS
        self.c.base.watch = WATCH_RECEIVES if answers else WATCH_POSTS
        self.c.base.spins = provider not in NEVER_SPUN
        if provider not in SPLIT:
            self.c.receives = self.c.posts = self.c.bell = self.open(size, FI_WAIT_FD)
        elif answers:
            self.c.receives = self.open(size, FI_WAIT_NONE)
            self.c.posts = self.c.bell = self.open(size, FI_WAIT_FD)
        else:
            self.c.posts = self.open(size, FI_WAIT_NONE)
            self.c.receives = self.c.bell = self.open(size, FI_WAIT_FD)
        must(fi_control(&self.c.bell.fid, FI_GETWAIT, &self.c.descriptor), "FI_GETWAIT", provider)

    cdef fid_cq *open(self, size_t size, int wait) except NULL:
        cdef fi_cq_attr attributes
        cdef fid_cq *cq = NULL
        memset(&attributes, 0, sizeof(attributes))
        attributes.size = size
        attributes.format = FI_CQ_FORMAT_MSG
        attributes.wait_obj = wait
        must(fi_cq_open(self.domain.domain, &attributes, &cq, NULL), "fi_cq_open",
             self.domain.fabric.provider)
        return cq

    def __dealloc__(self):
        self.close()

    cpdef close(self):
        """Free the queue; its lanes must be closed first."""
        if is_copy(self.born):
            self.c.receives = self.c.posts = NULL
        if self.c.posts != NULL and self.c.posts != self.c.receives:
            fi_close(&self.c.posts.fid)
        if self.c.receives != NULL:
            fi_close(&self.c.receives.fid)
        self.c.receives = self.c.posts = self.c.bell = NULL
