"""The part of loading libfabric that needs the dynamic loader; it is not linked with it."""

from libc.stdint cimport uint32_t, uint64_t, uintptr_t


cdef extern from "<dlfcn.h>" nogil:
    int RTLD_NOW, RTLD_LOCAL, RTLD_NOLOAD
    void *dlopen(const char *path, int flags)
    void *dlsym(void *library, const char *name)
    int dlclose(void *library)

cdef extern from "load.h" nogil:
    void rpmem_without_kallsyms(void *library, void (*begin)(void *) noexcept, void *argument)


# Libfabric's fi_getinfo() and fi_freeinfo(), found by name: its headers are not needed here.
ctypedef int (*getinfo_t)(uint32_t version, const char *node, const char *service,
                          uint64_t flags, const void *hints, void **info) noexcept nogil
ctypedef void (*freeinfo_t)(void *info) noexcept nogil
cdef enum:
    VERSION_1_9 = 1 << 16 | 9


def is_loaded(const char *name):
    """Return whether the process has already loaded this library."""
    cdef void *library = dlopen(name, RTLD_NOW | RTLD_NOLOAD)
    if library != NULL:
        dlclose(library)
    return library != NULL


def load(const char *path):
    """Load a library; return its handle, or 0 if it cannot be loaded."""
    return <uintptr_t> dlopen(path, RTLD_NOW | RTLD_LOCAL)


def unload(uintptr_t handle):
    """Release a handle from `load`."""
    dlclose(<void *> handle)


def start_without_kernel_symbols():
    """Initialize libfabric and its providers, which happens once, without kallsyms."""
    cdef void *library = dlopen("libfabric.so.1", RTLD_NOW | RTLD_NOLOAD)
    if library == NULL:
        return
    with nogil:
        rpmem_without_kallsyms(library, ask_every_provider, library)
        dlclose(library)


cdef void ask_every_provider(void *library) noexcept nogil:
    """Query all providers: some read kallsyms when loaded, others when queried."""
    cdef getinfo_t getinfo = <getinfo_t> dlsym(library, "fi_getinfo")
    cdef freeinfo_t freeinfo = <freeinfo_t> dlsym(library, "fi_freeinfo")
    cdef void *info = NULL
    if getinfo != NULL and freeinfo != NULL:
        if getinfo(VERSION_1_9, NULL, NULL, 0, NULL, &info) == 0:
            freeinfo(info)
