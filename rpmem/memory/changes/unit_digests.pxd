# cython: language_level=3
"""Contents of unit_digests: digests of the units of a range, to be compared between machines."""

from libc.stdint cimport uint64_t

cdef enum:
    DIGEST_SIZE = 12          # of the 16 bytes that it makes
    AT_A_STRETCH = 512 * 1024  # bytes, before others that want the core get it

# Write the digest of each unit of some bytes to `digests`; the last unit may be a shorter one.
cdef void units_digest(const char *data, uint64_t length, uint64_t unit,
                       const unsigned char *secret, unsigned char *digests) noexcept nogil
