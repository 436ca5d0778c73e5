"""The dynamic loader: opening a library, and finding its functions by name and version."""

from libc.stdint cimport uintptr_t
from libc.string cimport memcpy

cdef extern from *:
    """
    #include <dlfcn.h>
    #include <link.h>

    static const char *rpmem_file_of(void *library)
    {
        struct link_map *map = NULL;
        return dlinfo(library, RTLD_DI_LINKMAP, &map) == 0 && map ? map->l_name : "";
    }
    """
    const char *rpmem_file_of(void *library) nogil

cdef extern from "<dlfcn.h>" nogil:
    int RTLD_NOW, RTLD_LOCAL, RTLD_NOLOAD
    void *dlopen(const char *path, int flags)
    void *dlsym(void *library, const char *name)
    void *dlvsym(void *library, const char *name, const char *version)
    int dlclose(void *library)
    const char *dlerror()


cdef void *address_of(str name, const char *symbol, const char *version=NULL) except NULL:
    from rpmem.base import libraries

    cdef uintptr_t library = libraries.opened(name)
    cdef void *found
    if version == NULL:
        found = dlsym(<void *> library, symbol)
    else:
        found = dlvsym(<void *> library, symbol, version)
    if found == NULL:
        raise libraries.unsuitable(
            name, symbol.decode(), "" if version == NULL else version.decode())
    return found


cdef int bind(str name, const rpmem_symbol_t *symbols) except -1:
    cdef void *found
    while symbols.name != NULL:
        found = address_of(name, symbols.name, symbols.version)
        memcpy(symbols.place, &found, sizeof(found))
        symbols += 1
    return 0


def is_loaded(const char *path):
    """Return whether the process has already loaded this library."""
    cdef void *library = dlopen(path, RTLD_NOW | RTLD_NOLOAD)
    if library != NULL:
        dlclose(library)
    return library != NULL


def load(const char *path):
    """Load a library and return its handle.

    Raises
    ------
    ImportError
        It cannot be loaded; with the loader's own words.
    """
    cdef void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL)
    if library == NULL:
        raise ImportError(dlerror().decode("utf-8", "replace"))
    return <uintptr_t> library


def unload(uintptr_t handle):
    """Release a handle from `load`."""
    dlclose(<void *> handle)


def file_of(uintptr_t handle):
    """Return the path from which a library was loaded."""
    return rpmem_file_of(<void *> handle)
