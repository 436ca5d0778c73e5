"""Digests of the units of a range, which two machines take of the same range to compare it.

The digest is XXH3 with 128 bits, of which the first 12 bytes of the canonical form are kept: two
contents of a unit have the same one by chance only, about once in 2**96 comparisons. The secret is
derived from a key that is drawn for each comparison of two copies, so nobody who wrote to the pool
before can have looked for two contents that have the same one.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint64_t
from libc.string cimport memcpy

from rpmem.base.bounds cimport is_outside
from rpmem.memory.changes.xxh3 cimport (
    SECRET_SIZE, XXH128_canonical_t, XXH128_canonicalFromHash, XXH3_128bits_withSecret,
    XXH3_generateSecret,
)
from rpmem.memory.region cimport Region

from rpmem.errors import ClosedError, RangeError, UsageError


cdef extern from "<sched.h>" nogil:
    int sched_yield()


cdef void units_digest(const char *data, uint64_t length, uint64_t unit,
                       const unsigned char *secret, unsigned char *digests) noexcept nogil:
    cdef uint64_t at = 0
    cdef uint64_t taken = 0
    cdef XXH128_canonical_t found
    while at < length:
        if taken >= AT_A_STRETCH:
            # Calls wait for a core otherwise, until a time slice of milliseconds is over.
            sched_yield()
            taken = 0
        XXH128_canonicalFromHash(&found, XXH3_128bits_withSecret(
            data + at, min(unit, length - at), secret, SECRET_SIZE))
        memcpy(digests, found.digest, DIGEST_SIZE)
        digests += DIGEST_SIZE
        at += unit
        taken += unit


def unit_digests(Region region not None, uint64_t offset, uint64_t length, uint64_t unit,
                 bytes key not None):
    """Return digests of the units of a range, one behind the other.

    Without the GIL. Other threads may store to the range meanwhile: then the digest of what they
    store to is that of some mixture.

    Parameters
    ----------
    region : Region
        The memory.
    offset, length : int
        The range. Its first unit begins with it, and its last one ends with it.
    unit : int
        Bytes.
    key : bytes
        The digests are compared with others that have the same one.

    Returns
    -------
    bytes
        12 for each unit.
    """
    cdef unsigned char secret[SECRET_SIZE]
    cdef uint64_t count
    if region.base == NULL:
        raise ClosedError("the region is closed", where=region.label)
    if is_outside(offset, length, 0, region.size):
        raise RangeError(f"(offset {offset}, length {length}) is not inside the {region.size} "
                         "bytes of the region", where=region.label)
    if unit == 0 or not key:
        raise UsageError("a unit has a byte at least, and so has a key")
    if XXH3_generateSecret(secret, SECRET_SIZE, PyBytes_AS_STRING(key), len(key)):
        raise UsageError("no secret can be derived from the key")
    count = (length - 1) // unit + 1 if length else 0
    digests = PyBytes_FromStringAndSize(NULL, <Py_ssize_t> (count * DIGEST_SIZE))
    cdef unsigned char *place = <unsigned char *> PyBytes_AS_STRING(digests)
    region.busy += 1
    with nogil:
        units_digest(region.base + offset, length, unit, secret, place)
    region.busy -= 1
    return digests
