"""From return values of libibverbs and librdmacm to errors."""

import os

from libc.errno cimport errno

from rpmem.errors import FabricFailure
from rpmem.fabric.shared.failures import failure


cdef int must(long rc, str what, object where=None, object kind=FabricFailure) except -1:
    """Return if 0; raise for -1, with the reason in `errno`, and for an errno."""
    cdef int number
    if rc == 0:
        return 0
    number = errno if rc < 0 else <int> rc
    raise failure(what, os.strerror(number), number, where, kind)
