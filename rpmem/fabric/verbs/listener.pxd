# cython: language_level=3
"""The listener for lanes over verbs."""

from rpmem.fabric.shared.connecting cimport Acceptor


cdef class Listener(Acceptor):
    """Listens on the fabric's address."""
