"""The keys of a session's lanes: the tokens that came over the control session, by lane.

An identity, which travels in plain text, is the session's nonce and the number of the lane. It
tells nothing about the key.
"""

from libc.stdint cimport uint32_t
from libc.stdio cimport snprintf
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset, strlen, strncmp

cdef extern from "<string.h>" nogil:
    void explicit_bzero(void *memory, size_t size)


cdef class Keyring:
    """The keys of a session.

    Parameters
    ----------
    nonce : bytes
        Names the session; 16 bytes, drawn for it.
    tokens : sequence of bytes
        One for each lane, 32 bytes.
    """

    def __cinit__(self, bytes nonce not None, object tokens):
        cdef bytes token
        cdef bytes prefix
        keys = list(tokens)
        if len(nonce) != NONCE or any(len(key) != KEY for key in keys):
            raise ValueError("a nonce has 16 bytes, and a token 32")
        prefix = b"rpmem1 " + nonce.hex().encode() + b" "
        memset(&self.c, 0, sizeof(self.c))
        memcpy(self.c.prefix, <const char *> prefix, len(prefix))
        self.c.keys = <unsigned char *> calloc(len(keys) or 1, KEY)
        self.c.there = <unsigned char *> calloc(len(keys) or 1, 1)
        if self.c.keys == NULL or self.c.there == NULL:
            raise MemoryError("no memory for keys")
        self.c.count = len(keys)
        for index, token in enumerate(keys):
            memcpy(self.c.keys + <size_t> index * KEY, <const char *> token, KEY)
            self.c.there[<size_t> index] = 1

    def __dealloc__(self):
        if self.c.keys != NULL:
            explicit_bzero(self.c.keys, <size_t> self.c.count * KEY)
        free(self.c.keys)
        free(self.c.there)

    def spend(self, uint32_t lane):
        """Return the token of a lane and forget it; None if that has happened before."""
        if lane >= self.c.count or not self.c.there[lane]:
            return None
        token = (<char *> self.c.keys + <size_t> lane * KEY)[:KEY]
        self.c.there[lane] = 0
        explicit_bzero(self.c.keys + <size_t> lane * KEY, KEY)
        return token


cdef int lane_named(const ring_t *ring, const char *identity) noexcept nogil:
    cdef size_t length = strlen(ring.prefix)
    cdef uint32_t lane = 0
    cdef const char *digit
    if strncmp(identity, ring.prefix, length) or not identity[length]:
        return -1
    digit = identity + length
    while digit[0]:
        if digit[0] < c'0' or digit[0] > c'9' or digit - identity > <ssize_t> length + 5:
            return -1
        lane = 10 * lane + (digit[0] - c'0')
        digit += 1
    return <int> lane if lane < ring.count and ring.there[lane] else -1


cdef void name_lane(const ring_t *ring, uint32_t lane, char *identity) noexcept nogil:
    snprintf(identity, IDENTITY, "%s%u", ring.prefix, lane)
