# cython: language_level=3
"""What carries the bytes of a lane, in both directions: a plain socket, or TLS over one."""

from rpmem.wire.lane cimport iovec


ctypedef struct transport_t:
    # Neither waits. Bytes taken or delivered, in the order of the vector; 0: none now; or minus
    # the errno, -EPIPE if the other side has hung up.
    ssize_t (*send)(transport_t *transport, const iovec *vector, size_t count) noexcept nogil
    ssize_t (*receive)(transport_t *transport, const iovec *vector, size_t count) noexcept nogil
    # As `receive`, but waits for NAP_MS at most; -EINTR after a signal.
    ssize_t (*nap)(transport_t *transport, const iovec *vector) noexcept nogil
    # Whether bytes have left the socket that were not delivered: nobody may sleep on it then.
    bint (*pending)(const transport_t *transport) noexcept nogil
    # Tell the other side that this is the end; from the thread that sends.
    void (*shut)(transport_t *transport) noexcept nogil
    int descriptor               # of the socket, which belongs to the lane
    void *state                  # the kind's own


cdef enum:
    NAP_MS = 10                  # a sleep in a socket, which nothing but the socket ends


# A socket as it is. Both kinds' are in blocking mode, with NAP_MS as SO_RCVTIMEO.
cdef transport_t plain_transport(int descriptor) noexcept nogil
