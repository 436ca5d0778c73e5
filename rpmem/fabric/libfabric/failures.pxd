# cython: language_level=3
"""From libfabric's return values to errors."""


# libfabric's text for a negative return value.
cdef str explain(long rc)
# Whether this process has no more descriptors.
cdef bint lacks_descriptors()
# 0 and above pass; anything else raises an error that names the call.
cdef int must(long rc, str what, object where=*, object kind=*) except -1
