# cython: language_level=3
"""XXH3 with 128 bits and a secret. It is all in the header, which is used without the library."""


cdef extern from * nogil:
    """
    #define XXH_INLINE_ALL
    #include <xxhash.h>
    """
    ctypedef struct XXH128_hash_t:
        unsigned long long low64
        unsigned long long high64
    ctypedef struct XXH128_canonical_t:
        unsigned char digest[16]
    XXH128_hash_t XXH3_128bits_withSecret(const void *data, size_t length, const void *secret,
                                          size_t secret_size)
    void XXH128_canonicalFromHash(XXH128_canonical_t *canonical, XXH128_hash_t found)
    int XXH3_generateSecret(void *secret, size_t secret_size, const void *seed, size_t seed_size)

cdef enum:
    SECRET_SIZE = 192         # what XXH3 itself uses
