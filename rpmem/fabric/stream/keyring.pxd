# cython: language_level=3
"""The keys of a session's lanes."""

from libc.stdint cimport uint32_t

cdef enum:
    KEY = 32                     # bytes
    NONCE = 16
    IDENTITY = 64                # bytes of an identity at most, with the NUL

ctypedef struct ring_t:
    char prefix[48]              # of every identity: it ends with the session's nonce
    uint32_t count
    unsigned char *keys
    unsigned char *there         # whether the key of a lane may still be used


cdef class Keyring:
    cdef ring_t c

# The lane that an identity names, or -1: it is of another session, or nobody's, or its key is gone.
cdef int lane_named(const ring_t *ring, const char *identity) noexcept nogil
# Write the identity of a lane.
cdef void name_lane(const ring_t *ring, uint32_t lane, char *identity) noexcept nogil
