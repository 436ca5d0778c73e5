"""Memory that lanes over byte streams reach: any memory of this process, as it is."""

from libc.stdint cimport uint64_t


cdef class Domain:
    """What lanes and memory belong to."""

    def __cinit__(self, object fabric not None):
        self.fabric = fabric

    cpdef close(self):
        """Nothing was taken from anybody."""
        self.exposed = None


cdef class Memory:
    """A range of memory; pins `keep` (a Region) until closed.

    Its parameters are explained in `rpmem.fabric.contract`. The other side of the domain's lanes
    reaches the latest that is `remote`, by offsets from its first byte.
    """

    def __cinit__(self, Domain domain not None, size_t address, size_t length, *, bint remote=False,
                  bint source=False, bint persistent=False, uint64_t key=0, object keep=None):
        self.base = <char *> address
        self.length = length
        self.key = key
        self.address = 0
        self.keep = keep
        if keep is not None:
            keep.pin("a fabric registration")
        if remote:
            domain.exposed = self

    def __dealloc__(self):
        self.close()

    @property
    def handle(self):
        """None is needed."""
        return 0

    @property
    def flushes(self):
        """False: there is no RDMA FLUSH."""
        return False

    cpdef close(self):
        """Let the memory go; lanes that reach it have to be closed first."""
        self.base = NULL
        if self.keep is not None:
            keep, self.keep = self.keep, None
            keep.unpin("a fabric registration")
