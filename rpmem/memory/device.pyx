"""How an NVDIMM identifies itself, which PMDK's shutdown state is made of."""

from libc.stdint cimport uint64_t
from libc.stdlib cimport calloc, free

from rpmem.memory.libpmem2 cimport (
    bind_libpmem2,
    pmem2_source,
    pmem2_source_delete,
    pmem2_source_device_id,
    pmem2_source_device_usc,
    pmem2_source_from_fd,
)

from rpmem.memory import nvdimm


def need_library():
    """Raise MissingExtension where persistent memory cannot be used as such: without libpmem2."""
    bind_libpmem2()


def device_identity(fd):
    """Return how the device below a file identifies itself: (unsafe shutdowns, id).

    Returns
    -------
    tuple of (int, bytes)
        ``(0, b"")`` for anything but an NVDIMM.

    Raises
    ------
    MissingExtension
        There may be NVDIMMs here, and there is no libpmem2, which knows them.
    """
    cdef pmem2_source *source = NULL
    cdef uint64_t shutdowns = 0
    cdef size_t length = 0
    cdef char *identity = NULL
    if not nvdimm.can_be_here():
        return 0, b""  # nothing to ask for: it takes 5 ms, libpmem2 and libcrypto
    bind_libpmem2()
    if pmem2_source_from_fd(&source, <int> fd) != 0:
        return 0, b""
    try:
        if pmem2_source_device_usc(source, &shutdowns) != 0:
            shutdowns = 0
        if pmem2_source_device_id(source, NULL, &length) != 0 or length == 0:
            return shutdowns, b""
        # Zeroed: libpmem2 appends to the existing text.
        identity = <char *> calloc(length + 1, 1)
        if identity == NULL:
            raise MemoryError()
        if pmem2_source_device_id(source, identity, &length) != 0:
            return shutdowns, b""
        return shutdowns, <bytes> identity
    finally:
        free(identity)
        pmem2_source_delete(&source)
