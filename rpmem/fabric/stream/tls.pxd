# cython: language_level=3
"""The transport that is TLS 1.3 over a socket, by OpenSSL."""

from libc.stdint cimport uint32_t, uint64_t

from rpmem.fabric.stream.keyring cimport ring_t
from rpmem.fabric.stream.transport cimport transport_t

cdef enum:
    RECORD = 16384               # bytes of plain text in the largest record
    LARGEST = RECORD + 256 + 5   # and of that record as it travels
    RECORDS = 4 * LARGEST        # bytes received at once
    UNSENT = 2 * LARGEST + 1024  # encrypted bytes that wait for the socket
    SMALL_REST = 4096            # a rest that is sent together with the record before it

# One connection. Used by one thread at a time.
ctypedef struct tls_t:
    void *ssl
    int descriptor
    bint established             # the handshake is over; before that, the socket is read directly
    int error                    # the errno that has ended it
    bint starved                 # OpenSSL has asked for bytes that are not there yet
    # encrypted bytes received: [begin, whole) are whole records
    char *records
    uint32_t begin
    uint32_t whole
    uint32_t end
    # encrypted bytes to be sent
    char *unsent
    uint32_t unsent_begin
    uint32_t unsent_end
    bint corked                  # more follows at once
    bint held                    # the last byte of what was taken is not reported yet
    char *gather                 # a record's plain text that lies in several places
    uint64_t written             # records since the key of this side was renewed
    uint64_t renew_every         # records
    uint64_t renewals
    const ring_t *ring           # the keys
    int lane                     # whose key is used; -1: not known yet


# Its transport. The connection is to be established; it belongs to whoever calls.
cdef transport_t tls_transport(tls_t *tls) noexcept nogil
# Send encrypted bytes that are left: 0, 1 if there are still some, or minus the errno.
cdef int tls_push(tls_t *tls) noexcept nogil
# A BIO between OpenSSL and the socket; NULL without memory.
cdef void *tls_bio(tls_t *tls) noexcept nogil
# Open libssl and make the kind of these BIOs, once per process; raises MissingExtension.
cdef int tls_prepare() except -1
