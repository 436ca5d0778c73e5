# cython: language_level=3
"""The native in-band messages, shared by the initiator's steps and the target's service.

Little-endian, no padding. A request is a header, `count` range descriptors, then the
data of the ranges that carry any, back to back. See docs/protocol.md.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t


cpdef enum:
    MESSAGE_UPDATE = 1        # store the data, make every range durable
    MESSAGE_FETCH = 2         # copy one range to the lane's staging buffer; always answered
    MESSAGE_REPLY = 0x81

cpdef enum:
    UPDATE_ANSWER = 1         # reply once this and all earlier messages are durable
    UPDATE_DEEP = 2           # deep flush instead of persist

# In a descriptor's length: the data was already WRITTEN, none follows.
cpdef enum:
    WRITTEN_SHIFT = 63

ctypedef packed struct header_t:
    uint8_t kind
    uint8_t flags
    uint16_t count
    uint32_t sequence

ctypedef packed struct descriptor_t:
    uint64_t offset
    uint64_t length           # bit 63: WRITTEN

cpdef enum:
    REPLY_DONE = 0
    REPLY_FLUSH_FAILED = 1    # the medium refused; `number` is the errno
    REPLY_BAD_RANGE = 2
    REPLY_BAD_MESSAGE = 3

ctypedef packed struct reply_t:
    uint8_t kind
    uint8_t status
    uint16_t reserved
    uint32_t sequence         # all messages up to this one are durable
    uint32_t number
    uint32_t reserved2
