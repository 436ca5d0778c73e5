"""The transport that is a socket as it is."""

from libc.errno cimport EAGAIN, EINTR, EPIPE, errno
from libc.string cimport memcpy, memset

from rpmem.wire.lane cimport iovec

cdef extern from "<sys/socket.h>" nogil:
    enum: MSG_DONTWAIT
    enum: MSG_NOSIGNAL
    enum: SHUT_RDWR
    struct msghdr:
        iovec *msg_iov
        size_t msg_iovlen
    ssize_t sendmsg(int descriptor, const msghdr *message, int flags)
    ssize_t recvmsg(int descriptor, msghdr *message, int flags)
    int shutdown(int descriptor, int how)

cdef extern from "<sys/syscall.h>" nogil:
    enum: SYS_recvfrom
    enum: SYS_sendto

cdef extern from "<unistd.h>" nogil:
    # A thread can be cancelled in libc's `send` and `recv`, which costs two atomic operations.
    long syscall(long number, ...)

cdef enum:
    JOINED = 4608                 # most bytes that are copied to be sent as one piece


cdef inline ssize_t outcome(ssize_t n) noexcept nogil:
    if n < 0:
        return 0 if errno == EAGAIN or errno == EINTR else -errno
    return n


cdef ssize_t plain_send(transport_t *transport, const iovec *vector, size_t count) noexcept nogil:
    cdef msghdr message
    cdef char joined[JOINED]
    cdef size_t length = 0
    cdef size_t i
    cdef ssize_t n
    for i in range(count):
        length += vector[i].iov_len
    if length <= JOINED:
        # Cheaper than a vector, which the kernel takes apart.
        length = 0
        for i in range(count):
            memcpy(joined + length, vector[i].iov_base, vector[i].iov_len)
            length += vector[i].iov_len
        n = syscall(SYS_sendto, transport.descriptor, joined, length, MSG_DONTWAIT | MSG_NOSIGNAL,
                    <void *> NULL, 0)
        return outcome(n)
    memset(&message, 0, sizeof(message))
    message.msg_iov = <iovec *> vector
    message.msg_iovlen = count
    return outcome(sendmsg(transport.descriptor, &message, MSG_DONTWAIT | MSG_NOSIGNAL))


cdef ssize_t plain_receive(transport_t *transport, const iovec *vector,
                           size_t count) noexcept nogil:
    cdef msghdr message
    cdef ssize_t n
    if count == 1:
        n = syscall(SYS_recvfrom, transport.descriptor, vector[0].iov_base, vector[0].iov_len,
                    MSG_DONTWAIT, <void *> NULL, <void *> NULL)
    else:
        memset(&message, 0, sizeof(message))
        message.msg_iov = <iovec *> vector
        message.msg_iovlen = count
        n = recvmsg(transport.descriptor, &message, MSG_DONTWAIT)
    return -EPIPE if n == 0 else outcome(n)


cdef ssize_t plain_nap(transport_t *transport, const iovec *vector) noexcept nogil:
    cdef ssize_t n = syscall(SYS_recvfrom, transport.descriptor, vector.iov_base, vector.iov_len,
                             0, <void *> NULL, <void *> NULL)
    if n < 0 and errno == EINTR:
        return -EINTR
    return -EPIPE if n == 0 else outcome(n)


cdef bint plain_pending(const transport_t *transport) noexcept nogil:
    return False


cdef void plain_shut(transport_t *transport) noexcept nogil:
    shutdown(transport.descriptor, SHUT_RDWR)


cdef transport_t plain_transport(int descriptor) noexcept nogil:
    cdef transport_t transport
    transport.send = plain_send
    transport.receive = plain_receive
    transport.nap = plain_nap
    transport.pending = plain_pending
    transport.shut = plain_shut
    transport.descriptor = descriptor
    transport.state = NULL
    return transport
