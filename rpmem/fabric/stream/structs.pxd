# cython: language_level=3
"""Lanes and queues of byte streams as structs."""

from libc.stdint cimport uint32_t, uint64_t

from rpmem.fabric.stream.frames cimport frame_t
from rpmem.fabric.stream.transport cimport transport_t
from rpmem.wire.lane cimport iovec, lane_t, queue_t

cdef enum:
    FEW = 4                      # lanes up to which a queue does without its epoll
    INBOX = 69632                # bytes that are received before it is known what they are
    INLINE = 4096                # most bytes that a post copies if the socket takes only a part
    MOST_READS = 64              # READs of a lane that are not answered
    MOST_PARTS = 4               # of a post, its header included
    MOST_REST = MOST_PARTS + 2   # with a WRITE before it

# A READ that was asked for.
ctypedef struct wanted_t:
    char *destination
    uint64_t length

ctypedef struct stream_lane_t:
    lane_t base
    transport_t transport
    bint near                    # the other side is on this machine
    # the memory that the other side reaches, by WRITE and READ
    char *exposed
    uint64_t exposed_size
    # what arrives: bytes not looked at yet; then a frame's body, which goes straight to its place
    char *inbox
    uint32_t inbox_begin
    uint32_t inbox_end
    frame_t frame
    bint in_body
    char *into
    uint64_t left                # bytes of the body that are still to come
    uint32_t slot
    # receive buffers that were posted: a ring
    uint32_t *posted
    uint32_t posted_first
    uint32_t posted_count
    wanted_t reads[MOST_READS]   # a ring, too
    uint32_t reads_first
    uint32_t reads_count
    uint32_t unconfirmed         # WRITEs that have asked for DONE
    uint32_t confirms            # DONEs that are owed
    # what the socket did not take of a post
    frame_t header
    frame_t held_header
    iovec rest[MOST_REST]
    uint32_t rest_first
    uint32_t rest_count
    char *spill
    bint held                    # it is a whole WRITE, which leaves with the next post
    int broken                   # minus the errno for which the socket takes nothing any more
    bint full                    # the socket had no room for all of the last post
    bint awaits_room             # and sleeps end when it has some
    bint stuck                   # the next frame waits for a buffer, or for room to answer it
    bint more                    # there may be something to do although nothing arrives
    bint dead                    # its end was told

ctypedef struct stream_queue_t:
    queue_t base
    int epoll
    bint watched                 # by the epoll: there were more than `FEW` lanes
    int bell                     # an eventfd
    stream_lane_t **lanes
    uint32_t count
    uint32_t hot                 # the lane that had something last
    uint32_t polls               # since all were looked at
    uint32_t look                # how many there are until they are looked at again
