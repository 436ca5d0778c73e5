# cython: language_level=3
"""Frames: what travels on a lane over a byte stream, each with this header.

All numbers are little-endian, as in the messages.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    FRAME_MESSAGE = 1            # a message of `length` bytes follows
    FRAME_WRITE = 2              # `length` bytes follow, for the pool at `offset`
    FRAME_READ = 3               # `length` bytes of the pool at `offset` are wanted
    FRAME_DATA = 4               # `length` bytes follow, the answer to the oldest READ
    FRAME_DONE = 5               # the oldest WRITE that asked, and all before it, is in memory

cdef enum:
    # flags of a WRITE
    FRAME_ASKS = 1               # DONE is wanted
    FRAME_WORDS = 2              # each aligned 8-byte word is stored whole

ctypedef struct frame_t:
    uint32_t length
    uint8_t kind
    uint8_t flags
    uint16_t processor           # of a MESSAGE: 1 + the one its sender runs on; or zero
    uint64_t offset              # zero, but for a WRITE or READ
