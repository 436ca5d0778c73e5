# cython: language_level=3
"""From return values of libibverbs and librdmacm to errors."""


# 0 passes; -1 means that the errno is in `errno`, anything else is the errno itself.
cdef int must(long rc, str what, object where=*, object kind=*) except -1
