"""The transport that is TLS 1.3 over a socket, by OpenSSL.

OpenSSL never touches the socket of an established connection. What has arrived is received here,
and OpenSSL is asked for plain text only once a whole record is there: a request that finds nothing
is dear. What it has encrypted is sent from where it lies; only what the socket does not take is
kept, and its last byte of plain text is reported as not taken until all of it has left.

The key of this side is renewed after so many records, long before AES-GCM wears it out.
"""

from libc.errno cimport EAGAIN, EBADMSG, EINTR, ENOBUFS, EPIPE, errno
from libc.stdint cimport uint32_t
from libc.string cimport memcpy, memmove

from rpmem.fabric.stream.libssl cimport (
    RPMEM_BIO_AGAIN, RPMEM_BIO_CTRL_FLUSH, RPMEM_BIO_READ_AGAIN, RPMEM_BIO_TYPE,
    RPMEM_KEY_UPDATE_NOT_REQUESTED, RPMEM_RECEIVED_SHUTDOWN,
    BIO_clear_flags, BIO_get_data, BIO_meth_new, BIO_meth_set_ctrl, BIO_meth_set_read,
    BIO_meth_set_write, BIO_new, BIO_set_data, BIO_set_flags, BIO_set_init, ERR_clear_error,
    SSL_get_shutdown, SSL_key_update, SSL_pending, SSL_read, SSL_shutdown, SSL_write, bind_libssl,
)
from rpmem.fabric.stream.transport cimport transport_t
from rpmem.wire.lane cimport iovec

cdef extern from "<sys/socket.h>" nogil:
    enum: MSG_DONTWAIT
    enum: MSG_NOSIGNAL
    enum: SHUT_RDWR
    ssize_t send(int descriptor, const void *data, size_t length, int flags)
    ssize_t recv(int descriptor, void *buffer, size_t length, int flags)
    int shutdown(int descriptor, int how)

cdef enum:
    RECORD_HEADER = 5

cdef void *method = NULL


# --- between OpenSSL and the socket -------------------------------------------------

cdef int put(tls_t *tls, const char *data, uint32_t size) noexcept nogil:
    """Send what the socket takes: so many bytes, or minus the errno."""
    cdef ssize_t n = send(tls.descriptor, data, size, MSG_DONTWAIT | MSG_NOSIGNAL)
    if n >= 0:
        return <int> n
    if errno == EAGAIN or errno == EINTR:
        return 0
    tls.error = errno
    return -tls.error


cdef int tls_push(tls_t *tls) noexcept nogil:
    cdef int n
    if tls.unsent_begin < tls.unsent_end:
        n = put(tls, tls.unsent + tls.unsent_begin, tls.unsent_end - tls.unsent_begin)
        if n < 0:
            return n
        tls.unsent_begin += n
        if tls.unsent_begin < tls.unsent_end:
            return 1
    tls.unsent_begin = tls.unsent_end = 0
    return 0


cdef int bio_write(void *bio, const char *data, int size) noexcept nogil:
    """Take a record: all of it, if there is memory."""
    cdef tls_t *tls = <tls_t *> BIO_get_data(bio)
    cdef int n = 0
    BIO_clear_flags(bio, RPMEM_BIO_AGAIN)
    if not tls.corked and tls.unsent_end == 0:
        n = put(tls, data, size)
        if n < 0:
            return -1
    if n < size:
        if tls.unsent_end + (size - n) > <uint32_t> UNSENT:
            tls.error = ENOBUFS
            return -1
        memcpy(tls.unsent + tls.unsent_end, data + n, size - n)
        tls.unsent_end += size - n
    return size


cdef int bio_read(void *bio, char *where, int size) noexcept nogil:
    """Give bytes of whole records; during the handshake, bytes of the socket."""
    cdef tls_t *tls = <tls_t *> BIO_get_data(bio)
    cdef ssize_t n
    BIO_clear_flags(bio, RPMEM_BIO_AGAIN)
    if tls.established:
        n = min(<uint32_t> size, tls.whole - tls.begin)
        if n:
            memcpy(where, tls.records + tls.begin, n)
            tls.begin += <uint32_t> n
            return <int> n
    else:
        n = recv(tls.descriptor, where, size, MSG_DONTWAIT)
        if n >= 0:
            return <int> n
        if errno != EAGAIN and errno != EINTR:
            tls.error = errno
            return -1
    tls.starved = True
    BIO_set_flags(bio, RPMEM_BIO_READ_AGAIN)
    return -1


cdef long bio_control(void *bio, int what, long number, void *data) noexcept nogil:
    return what == RPMEM_BIO_CTRL_FLUSH


cdef int tls_prepare() except -1:
    global method
    cdef void *made
    if method == NULL:
        bind_libssl()
        made = BIO_meth_new(RPMEM_BIO_TYPE, "rpmem")
        if made == NULL:
            raise MemoryError("no memory for an encrypted lane")
        BIO_meth_set_write(made, bio_write)
        BIO_meth_set_read(made, bio_read)
        BIO_meth_set_ctrl(made, bio_control)
        method = made
    return 0


cdef void *tls_bio(tls_t *tls) noexcept nogil:
    cdef void *bio = BIO_new(method)
    if bio != NULL:
        BIO_set_data(bio, tls)
        BIO_set_init(bio, 1)
    return bio


cdef ssize_t trouble(tls_t *tls) noexcept nogil:
    """OpenSSL could not go on: 0 if it only needs more bytes, else minus the errno."""
    if tls.error == 0:
        # OpenSSL would look into a queue of errors that may hold those of others.
        if tls.starved:
            return 0
        ended = SSL_get_shutdown(tls.ssl) & RPMEM_RECEIVED_SHUTDOWN
        tls.error = EPIPE if ended else EBADMSG
        # Others of this thread look there, too: Python's own ssl.
        ERR_clear_error()
    return -tls.error


# --- receiving ----------------------------------------------------------------------

cdef void find_whole(tls_t *tls) noexcept nogil:
    """Set `whole` behind the last record of which everything is there."""
    cdef unsigned char *header
    cdef uint32_t length
    while tls.end - tls.whole >= RECORD_HEADER:
        header = <unsigned char *> tls.records + tls.whole
        length = RECORD_HEADER + (<uint32_t> header[3] << 8 | header[4])
        if length > LARGEST:
            tls.whole = tls.end  # which OpenSSL refuses
            return
        if tls.end - tls.whole < length:
            return
        tls.whole += length


cdef ssize_t fill(tls_t *tls, int flags) noexcept nogil:
    """Receive records behind what is there: so many bytes, or minus the errno.

    -EINTR, which is not the end, only where the socket waits.
    """
    cdef ssize_t n
    cdef uint32_t left = tls.end - tls.begin
    if tls.begin:
        if left:
            memmove(tls.records, tls.records + tls.begin, left)
        tls.begin = tls.whole = 0
        tls.end = left
    n = recv(tls.descriptor, tls.records + left, RECORDS - left, flags)
    if n > 0:
        tls.end += <uint32_t> n
        find_whole(tls)
        return n
    if n < 0 and (errno == EAGAIN or errno == EINTR):
        return -EINTR if errno == EINTR and flags == 0 else 0
    tls.error = errno if n < 0 else EPIPE
    return -tls.error


cdef ssize_t plain_text(tls_t *tls, const iovec *vector, size_t count) noexcept nogil:
    """Decrypt what is there of whole records: so many bytes, or minus the errno."""
    cdef size_t total = 0
    cdef size_t done
    cdef size_t i
    cdef ssize_t n
    for i in range(count):
        done = 0
        while done < vector[i].iov_len:
            if tls.begin == tls.whole and SSL_pending(tls.ssl) == 0:
                return total
            tls.starved = False
            n = SSL_read(tls.ssl, <char *> vector[i].iov_base + done,
                         <int> min(vector[i].iov_len - done, <size_t> RECORD))
            if n > 0:
                done += n
                total += n
                continue
            n = trouble(tls)
            if n < 0:
                return total if total else n
    return total


cdef ssize_t receive(tls_t *tls, const iovec *vector, size_t count, int flags) noexcept nogil:
    cdef ssize_t n
    if tls.begin == tls.whole and SSL_pending(tls.ssl) == 0:
        if tls.error:
            return -tls.error
        n = fill(tls, flags)
        if n < 0 or tls.begin == tls.whole:
            return min(n, 0)
    return plain_text(tls, vector, count)


cdef ssize_t tls_receive(transport_t *transport, const iovec *vector, size_t count) noexcept nogil:
    return receive(<tls_t *> transport.state, vector, count, MSG_DONTWAIT)


cdef ssize_t tls_nap(transport_t *transport, const iovec *vector) noexcept nogil:
    return receive(<tls_t *> transport.state, vector, 1, 0)


cdef bint tls_pending(const transport_t *transport) noexcept nogil:
    cdef tls_t *tls = <tls_t *> transport.state
    return tls.begin < tls.whole or SSL_pending(tls.ssl) > 0


# --- sending ------------------------------------------------------------------------

cdef ssize_t write_record(tls_t *tls, const char *data, size_t size, size_t rest) noexcept nogil:
    """Encrypt a record and send it; behind it come `rest` bytes more. 0, or minus the errno."""
    cdef int n
    tls.starved = False
    if tls.written == tls.renew_every:
        if SSL_key_update(tls.ssl, RPMEM_KEY_UPDATE_NOT_REQUESTED) != 1:
            return trouble(tls) or -EBADMSG
        tls.written = 0
        tls.renewals += 1
    tls.corked = 0 < rest < SMALL_REST
    n = SSL_write(tls.ssl, data, <int> size)
    if n <= 0:
        return trouble(tls) or -EBADMSG
    tls.written += 1
    if tls.corked:
        return 0
    n = tls_push(tls)
    return min(n, 0)


cdef ssize_t tls_send(transport_t *transport, const iovec *vector, size_t count) noexcept nogil:
    cdef tls_t *tls = <tls_t *> transport.state
    cdef size_t left = 0         # bytes that are not taken yet
    cdef size_t taken = 0
    cdef size_t i = 0            # the next byte: which part, and where in it
    cdef size_t at = 0
    cdef size_t size
    cdef size_t part
    cdef const char *data
    cdef ssize_t rc
    if tls.error:
        return -tls.error
    rc = tls_push(tls)
    if rc:
        return min(rc, 0)
    for size in range(count):
        left += vector[size].iov_len
    if tls.held and left:
        tls.held = False
        taken = at = 1
        left -= 1
    while left:
        while at == vector[i].iov_len:
            i += 1
            at = 0
        size = min(vector[i].iov_len - at, <size_t> RECORD)
        data = <const char *> vector[i].iov_base + at
        if size == left or size == RECORD:
            at += size
        else:
            data = tls.gather
            size = 0
            while size < RECORD and size < left:
                if at == vector[i].iov_len:
                    i += 1
                    at = 0
                    continue
                part = min(vector[i].iov_len - at, RECORD - size)
                memcpy(tls.gather + size, <const char *> vector[i].iov_base + at, part)
                size += part
                at += part
        left -= size
        taken += size
        rc = write_record(tls, data, size, left)
        if rc < 0:
            return rc
        if tls.unsent_end and not tls.corked:
            tls.held = True
            return taken - 1
    return taken


cdef void tls_shut(transport_t *transport) noexcept nogil:
    cdef tls_t *tls = <tls_t *> transport.state
    if tls.error == 0 and tls_push(tls) == 0:
        SSL_shutdown(tls.ssl)
        ERR_clear_error()
    shutdown(tls.descriptor, SHUT_RDWR)


cdef transport_t tls_transport(tls_t *tls) noexcept nogil:
    cdef transport_t transport
    transport.send = tls_send
    transport.receive = tls_receive
    transport.nap = tls_nap
    transport.pending = tls_pending
    transport.shut = tls_shut
    transport.descriptor = tls.descriptor
    transport.state = tls
    return transport
