# cython: language_level=3
"""The handshake of an encrypted lane, and the connection that it makes."""

from rpmem.fabric.stream.keyring cimport Keyring
from rpmem.fabric.stream.tls cimport tls_t
from rpmem.fabric.stream.transport cimport transport_t


cdef class Handshake:
    cdef tls_t c
    cdef readonly Keyring ring
    cdef object refusal(self)
    # What carries the lane, once it is done. This object has to outlive it.
    cdef transport_t transport(self) except *
