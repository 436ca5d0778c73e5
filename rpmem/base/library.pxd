# cython: language_level=3
"""How a compiled part gets at the functions of a library that is opened at run time."""


cdef extern from "rpmem/base/library.h" nogil:
    ctypedef struct rpmem_symbol_t:
        const char *name
        const char *version
        void *place


# Open a library, unless it is, and fill in the pointers of a list. Raises MissingExtension, which
# names the library's package.
cdef int bind(str name, const rpmem_symbol_t *symbols) except -1
# The address of something in a library; raises as `bind` does.
cdef void *address_of(str name, const char *symbol, const char *version=*) except NULL
