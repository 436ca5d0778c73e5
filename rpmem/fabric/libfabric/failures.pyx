"""From libfabric's return values to errors: a negative errno, or a number of libfabric's own."""

import errno
import os

from rpmem.errors import FabricFailure
from rpmem.fabric.libfabric.fi cimport bind_libfabric, fi_strerror
from rpmem.fabric.shared.failures import failure

bind_libfabric()

cdef enum:
    FIRST_OF_ITS_OWN = 200       # from here on, libfabric's own numbers


cdef str explain(long rc):
    return fi_strerror(<int> -rc).decode("utf-8", "replace")


cdef bint lacks_descriptors():
    try:
        os.close(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        return error.errno == errno.EMFILE
    return False


cdef int must(long rc, str what, object where=None, object kind=FabricFailure) except -1:
    """Return if `rc` is 0 or above; otherwise raise an error that names the call."""
    if rc >= 0:
        return 0
    number = <int> -rc if -rc < FIRST_OF_ITS_OWN else None
    why = explain(rc)
    if number == errno.EIO and lacks_descriptors():
        # libfabric replaces this number where it makes a socket.
        number, why = errno.EMFILE, os.strerror(errno.EMFILE)
    raise failure(what, why, number, where, kind)
