"""OpenSSL's libssl, opened when it is first needed: the one that Python uses, else the system's."""

import os
from importlib import import_module

from rpmem.errors import MissingExtension

cdef extern from "<dlfcn.h>" nogil:
    int RTLD_NOW, RTLD_LOCAL
    void *dlopen(const char *path, int flags)
    const char *dlerror()

cdef enum:
    OLDEST = 0x30000000

cdef bint is_open = False

_HINT = "install libssl3; encryption='off' goes without, where nobody else reaches the network"


def pythons_own():
    """Return the file that Python's `ssl` uses, or None if OpenSSL is inside of it, or missing.

    Two of them in one process would each take their share of memory, and time to start.
    """
    try:
        import_module("_ssl")
        with open("/proc/self/maps") as maps:
            paths = {"/" + line.partition(" /")[2].rstrip("\n") for line in maps}
    except (ImportError, OSError):
        return None
    found = sorted(path for path in paths if os.path.basename(path).startswith("libssl.so"))
    return found[0] if found else None


def load(path):
    """Open this file, or the system's library of that name, and find everything in it.

    Raises
    ------
    MissingExtension
        It is not there, or too old.
    """
    global is_open, libssl
    cdef libssl_t found
    cdef const char *missing
    cdef bytes name = os.fsencode(path)
    cdef void *library = dlopen(name, RTLD_NOW | RTLD_LOCAL)
    if library == NULL:
        raise MissingExtension(
            f"lanes cannot be encrypted here: {(<bytes> dlerror()).decode(errors='replace')}",
            hint=_HINT)
    missing = rpmem_libssl_find(&found, library)
    if missing != NULL or found.OpenSSL_version_num() < OLDEST:
        what = "is older than OpenSSL 3.0" if missing == NULL else f"has no {missing.decode()}"
        raise MissingExtension(f"lanes cannot be encrypted here: {path} {what}", hint=_HINT)
    libssl = found
    is_open = True


cdef int require() except -1:
    if not is_open:
        load(pythons_own() or "libssl.so.3")
    return 0
