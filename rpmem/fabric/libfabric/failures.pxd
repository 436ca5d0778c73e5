# cython: language_level=3
"""From libfabric's return values to errors."""


# libfabric's own word for a negative return value.
cdef str explain(long rc)
# Whether this process can open nothing more.
cdef bint lacks_descriptors()
# 0 and above pass, anything else is an error that names the call.
cdef int must(long rc, str what, object where=*, object kind=*) except -1
