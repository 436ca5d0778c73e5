# cython: language_level=3
"""Where verbs lanes are waited for."""

from rpmem.fabric.shared.connecting cimport Acceptor


cdef class Listener(Acceptor):
    """Listens on the fabric's address."""
