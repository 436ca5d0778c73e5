"""Memory registered with libfabric, and its domain: fi_domain(3), fi_mr(3)."""

import errno

from libc.stdint cimport uint64_t

from rpmem.base.fork cimport fork_generation, is_copy
from rpmem.errors import RegistrationFailed
from rpmem.fabric.libfabric.failures cimport explain, must
from rpmem.fabric.libfabric.fi cimport *
from rpmem.fabric.shared.failures import LOCKED_MEMORY


cdef class Domain:
    """A domain in which memory is registered and endpoints are made; one thread at a time."""

    def __cinit__(self, Fabric fabric not None):
        self.born = fork_generation()
        self.fabric = fabric
        must(fi_domain(fabric.fabric, fabric.info, &self.domain, NULL), "fi_domain",
             fabric.provider)

    def __dealloc__(self):
        self.close()

    cpdef close(self):
        """Free the domain. Its lanes, queues and memory must be closed first."""
        if is_copy(self.born):
            self.domain = NULL
        if self.domain != NULL:
            fi_close(&self.domain.fid)
            self.domain = NULL


cdef class Memory:
    """A registered range of memory; pins `keep` (a Region) until closed.

    Its parameters are explained in `rpmem.fabric.contract`. The requested `key` is used if the
    provider lets us choose; `persistent` memory is what commits have to reach.
    """

    def __cinit__(self, Domain domain not None, size_t address, size_t length, *, bint remote=False,
                  bint source=False, bint persistent=False, uint64_t key=0, object keep=None):
        cdef uint64_t access = FI_SEND | FI_WRITE
        cdef uint64_t flags = FI_RMA_PMEM if persistent else 0
        cdef int mode = domain.fabric.info.domain_attr.mr_mode
        cdef int rc
        if not source:
            access |= FI_RECV | FI_READ
        if remote:
            access |= FI_REMOTE_READ | FI_REMOTE_WRITE
        self.born = fork_generation()
        self.domain = domain
        self.keep = keep
        with nogil:
            rc = fi_mr_reg(domain.domain, <const void *> address, length, access, 0, key, flags,
                           &self.mr, NULL)
        if rc < 0:
            raise RegistrationFailed(
                f"{length} bytes of memory cannot be registered with {domain.fabric.provider}: "
                f"{explain(rc)}", errno=-rc,
                hint=LOCKED_MEMORY if rc == -errno.ENOMEM else None)
        self.key = fi_mr_key(self.mr)
        self.address = address if mode & FI_MR_VIRT_ADDR else 0
        if keep is not None:
            keep.pin("a fabric registration")

    def __dealloc__(self):
        self.close()

    @property
    def handle(self):
        """The handle that posts on lanes of the same domain need for this memory."""
        return <size_t> fi_mr_desc(self.mr)

    @property
    def flushes(self):
        """False: there is no RDMA FLUSH, see `Fabric.flushes`."""
        return False

    cpdef close(self):
        """Deregister."""
        if is_copy(self.born):
            self.mr = NULL
        if self.mr != NULL:
            fi_close(&self.mr.fid)
            self.mr = NULL
            if self.keep is not None:
                self.keep.unpin("a fabric registration")
