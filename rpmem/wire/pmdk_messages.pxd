# cython: language_level=3
"""PMDK 0.1's in-band messages, in host order: rpmem_proto.h's layout."""

from libc.stdint cimport uint32_t, uint64_t


cpdef enum:
    PMDK_FLUSH_WRITE = 0      # the data was already WRITTEN: flush it
    PMDK_DEEP_PERSIST = 1     # the same, deeply
    PMDK_PERSIST_SEND = 2     # the data follows: store and flush it
    PMDK_MODE_MASK = 3        # librpmem leaks an internal flag into the bits above

ctypedef packed struct pmdk_request_t:
    uint32_t flags
    uint32_t lane
    uint64_t address
    uint64_t size

ctypedef packed struct pmdk_reply_t:
    uint32_t flags            # undefined
    uint32_t lane
