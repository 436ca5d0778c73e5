# cython: language_level=3
"""Copying such that no aligned 8-byte word is ever seen half written, even after a crash.

The compiler may turn a plain loop into memcpy, which promises nothing about how a word is written;
relaxed atomic stores must be kept. Blocks go through 32-byte registers if the processor has them:
aligned vector stores reach memory in units of at least 8 bytes (Intel SDM vol. 3, 9.1.1 promises 16
where AVX is there).
"""


cdef extern from * nogil:
    """
    #include <stddef.h>
    #include <stdint.h>
    #include <string.h>

    #define RPMEM_STORE(type, to, from) do { \\
        type word_; \\
        memcpy(&word_, (from), sizeof word_); \\
        __atomic_store_n((type *)(to), word_, __ATOMIC_RELAXED); \\
    } while (0)

    #if defined(__x86_64__)
    #include <immintrin.h>

    /* `to` is aligned to 32 bytes, `length` a multiple of 128. */
    __attribute__((target("avx2")))
    static void rpmem_copy_blocks(char *to, const char *from, size_t length)
    {
        for (; length; to += 128, from += 128, length -= 128) {
            __m256i a = _mm256_loadu_si256((const __m256i *)from);
            __m256i b = _mm256_loadu_si256((const __m256i *)(from + 32));
            __m256i c = _mm256_loadu_si256((const __m256i *)(from + 64));
            __m256i d = _mm256_loadu_si256((const __m256i *)(from + 96));
            _mm256_store_si256((__m256i *)to, a);
            _mm256_store_si256((__m256i *)(to + 32), b);
            _mm256_store_si256((__m256i *)(to + 64), c);
            _mm256_store_si256((__m256i *)(to + 96), d);
        }
    }
    #define RPMEM_HAS_BLOCKS __builtin_cpu_supports("avx2")
    #else
    static void rpmem_copy_blocks(char *to, const char *from, size_t length)
    {
        (void)to; (void)from; (void)length;
    }
    #define RPMEM_HAS_BLOCKS 0
    #endif

    static int rpmem_copy_words(char *to, const char *from, size_t left)
    {
        if (left >= 1 && ((uintptr_t)to & 1)) {
            RPMEM_STORE(uint8_t, to, from); to += 1; from += 1; left -= 1;
        }
        if (left >= 2 && ((uintptr_t)to & 2)) {
            RPMEM_STORE(uint16_t, to, from); to += 2; from += 2; left -= 2;
        }
        if (left >= 4 && ((uintptr_t)to & 4)) {
            RPMEM_STORE(uint32_t, to, from); to += 4; from += 4; left -= 4;
        }
        if (((uintptr_t)to & 7) == 0) {
            if (left >= 512 && RPMEM_HAS_BLOCKS) {
                size_t blocks;
                while ((uintptr_t)to & 31) {
                    RPMEM_STORE(uint64_t, to, from); to += 8; from += 8; left -= 8;
                }
                blocks = left & ~(size_t)127;
                rpmem_copy_blocks(to, from, blocks);
                to += blocks; from += blocks; left -= blocks;
            }
            while (left >= 8) {
                RPMEM_STORE(uint64_t, to, from); to += 8; from += 8; left -= 8;
            }
        }
        if (left >= 4 && ((uintptr_t)to & 3) == 0) {
            RPMEM_STORE(uint32_t, to, from); to += 4; from += 4; left -= 4;
        }
        if (left >= 2 && ((uintptr_t)to & 1) == 0) {
            RPMEM_STORE(uint16_t, to, from); to += 2; from += 2; left -= 2;
        }
        while (left >= 1) {
            RPMEM_STORE(uint8_t, to, from); to += 1; from += 1; left -= 1;
        }
        return 0;
    }
    """
    int rpmem_copy_words(char *destination, const char *source, size_t length)
