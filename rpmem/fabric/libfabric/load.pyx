"""The part of starting libfabric that needs the dynamic loader."""

from libc.stdint cimport uint32_t, uint64_t, uintptr_t


cdef extern from "<dlfcn.h>" nogil:
    void *dlsym(void *library, const char *name)

cdef extern from "rpmem/fabric/libfabric/load.h" nogil:
    void rpmem_without_kallsyms(void *library, void (*begin)(void *) noexcept, void *argument)


# Libfabric's fi_getinfo() and fi_freeinfo(), found by name: its headers are not needed here.
ctypedef int (*getinfo_t)(uint32_t version, const char *node, const char *service,
                          uint64_t flags, const void *hints, void **info) noexcept nogil
ctypedef void (*freeinfo_t)(void *info) noexcept nogil
cdef enum:
    VERSION_1_9 = 1 << 16 | 9


def start_without_kernel_symbols(uintptr_t library):
    """Initialize libfabric and its providers, which happens once, without kallsyms.

    Parameters
    ----------
    library : int
        The handle of libfabric.
    """
    with nogil:
        rpmem_without_kallsyms(<void *> library, ask_every_provider, <void *> library)


cdef void ask_every_provider(void *library) noexcept nogil:
    """Query all providers: some read kallsyms when loaded, others when queried."""
    cdef getinfo_t getinfo = <getinfo_t> dlsym(library, "fi_getinfo")
    cdef freeinfo_t freeinfo = <freeinfo_t> dlsym(library, "fi_freeinfo")
    cdef void *info = NULL
    if getinfo != NULL and freeinfo != NULL:
        if getinfo(VERSION_1_9, NULL, NULL, 0, NULL, &info) == 0:
            freeinfo(info)
