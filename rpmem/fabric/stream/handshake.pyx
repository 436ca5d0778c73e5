"""The handshake of an encrypted lane: TLS 1.3 by a key that both sides got over ssh.

A key alone does not tell a client that its server has it: OpenSSL would accept a server that shows
a certificate instead. So the client verifies certificates and trusts none, and both sides ask
afterwards whether the key was used.
"""

import errno
import os

from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from rpmem.errors import ProviderUnavailable
from rpmem.fabric.stream.keyring cimport IDENTITY, KEY, Keyring, lane_named, name_lane
from rpmem.fabric.stream.libssl cimport (
    RPMEM_CTRL_MODE, RPMEM_CTRL_SET_MAX_PROTO_VERSION, RPMEM_CTRL_SET_MIN_PROTO_VERSION,
    RPMEM_CTRL_SET_SESS_CACHE_MODE, RPMEM_MODE_ACCEPT_MOVING_WRITE_BUFFER,
    RPMEM_OP_ALLOW_NO_DHE_KEX, RPMEM_OP_ENABLE_MIDDLEBOX_COMPAT, RPMEM_OP_NO_COMPRESSION,
    RPMEM_OP_NO_TICKET, RPMEM_OP_PREFER_NO_DHE_KEX, RPMEM_SESS_CACHE_OFF,
    RPMEM_TLS1_3, RPMEM_VERIFY_NONE, RPMEM_VERIFY_PEER,
    BIO_get_data, ERR_clear_error, ERR_peek_last_error, ERR_reason_error_string,
    SSL_CTX_clear_options, SSL_CTX_ctrl, SSL_CTX_new, SSL_CTX_set_ciphersuites,
    SSL_CTX_set_max_early_data, SSL_CTX_set_num_tickets, SSL_CTX_set_options,
    SSL_CTX_set_psk_client_callback, SSL_CTX_set_psk_server_callback,
    SSL_CTX_set_recv_max_early_data, SSL_CTX_set_verify, SSL_do_handshake, SSL_free,
    SSL_get_rbio, SSL_new, SSL_session_reused, SSL_set_accept_state, SSL_set_bio,
    SSL_set_connect_state, SSL_version, TLS_client_method, TLS_server_method, bind_libssl,
)
from rpmem.fabric.stream.tls cimport (
    RECORD, RECORDS, UNSENT, tls_bio, tls_prepare, tls_push, tls_t, tls_transport,
)
from rpmem.fabric.stream.transport cimport transport_t
from rpmem.wire.lane cimport iovec

#: Records after which a side renews its key. AES-GCM allows 2 ** 24.5 with one key.
RENEW_EVERY = 1 << 23

cdef void *client_context = NULL
cdef void *server_context = NULL


cdef unsigned int client_key(void *ssl, const char *hint, char *identity, unsigned int room,
                             unsigned char *key, unsigned int key_room) noexcept nogil:
    """Name the lane, and give its key."""
    cdef tls_t *tls = <tls_t *> BIO_get_data(SSL_get_rbio(ssl))
    if room < IDENTITY or key_room < KEY or not tls.ring.there[tls.lane]:
        return 0
    name_lane(tls.ring, tls.lane, identity)
    memcpy(key, tls.ring.keys + <size_t> tls.lane * KEY, KEY)
    return KEY


cdef unsigned int server_key(void *ssl, const char *identity, unsigned char *key,
                             unsigned int key_room) noexcept nogil:
    """Give the key of the lane that is named, if there is one; whoever has it may be many."""
    cdef tls_t *tls = <tls_t *> BIO_get_data(SSL_get_rbio(ssl))
    cdef int lane = lane_named(tls.ring, identity)
    if lane < 0 or key_room < KEY:
        return 0
    tls.lane = lane
    memcpy(key, tls.ring.keys + <size_t> lane * KEY, KEY)
    return KEY


cdef void *new_context(bint client) noexcept nogil:
    """What all connections of a side have in common; NULL if OpenSSL refuses any of it."""
    cdef void *made = SSL_CTX_new(TLS_client_method() if client else TLS_server_method())
    if made == NULL:
        return NULL
    # Said here, whatever the machine's openssl.cnf says.
    if (SSL_CTX_ctrl(made, RPMEM_CTRL_SET_MIN_PROTO_VERSION, RPMEM_TLS1_3, NULL) != 1
            or SSL_CTX_ctrl(made, RPMEM_CTRL_SET_MAX_PROTO_VERSION, RPMEM_TLS1_3, NULL) != 1
            or SSL_CTX_set_ciphersuites(made, "TLS_AES_128_GCM_SHA256") != 1
            or SSL_CTX_set_num_tickets(made, 0) != 1
            or SSL_CTX_set_max_early_data(made, 0) != 1
            or SSL_CTX_set_recv_max_early_data(made, 0) != 1):
        return NULL
    SSL_CTX_ctrl(made, RPMEM_CTRL_SET_SESS_CACHE_MODE, RPMEM_SESS_CACHE_OFF, NULL)
    SSL_CTX_ctrl(made, RPMEM_CTRL_MODE, RPMEM_MODE_ACCEPT_MOVING_WRITE_BUFFER, NULL)
    SSL_CTX_set_options(made, RPMEM_OP_NO_TICKET | RPMEM_OP_NO_COMPRESSION)
    SSL_CTX_clear_options(made, RPMEM_OP_ALLOW_NO_DHE_KEX | RPMEM_OP_PREFER_NO_DHE_KEX
                          | RPMEM_OP_ENABLE_MIDDLEBOX_COMPAT)
    if client:
        SSL_CTX_set_verify(made, RPMEM_VERIFY_PEER, NULL)
        SSL_CTX_set_psk_client_callback(made, client_key)
    else:
        SSL_CTX_set_verify(made, RPMEM_VERIFY_NONE, NULL)
        SSL_CTX_set_psk_server_callback(made, server_key)
    return made


cdef void *context(bint client) except NULL:
    global client_context, server_context
    if client_context != NULL and server_context != NULL:
        return client_context if client else server_context
    bind_libssl()
    tls_prepare()
    if client_context == NULL:
        client_context = new_context(True)
    if server_context == NULL:
        server_context = new_context(False)
    if client_context == NULL or server_context == NULL:
        ERR_clear_error()
        raise ProviderUnavailable(
            "OpenSSL does not do TLS 1.3 with AES-128-GCM here",
            hint="Look into openssl.cnf; encryption='off' goes without")
    return client_context if client else server_context


def need_encryption():
    """Make sure that lanes can be encrypted here.

    Raises
    ------
    MissingExtension
        There is no libssl, or it is older than 3.0.
    ProviderUnavailable
        Its configuration forbids what is needed.
    """
    context(True)


cdef class Handshake:
    """A connection of one lane that becomes encrypted.

    Parameters
    ----------
    descriptor : int
        A connected socket, which is not blocking; it stays the caller's.
    ring : Keyring
    lane : int
        Whose key to use; -1 at the target's side, which learns it.
    renew_every : int
        Records after which this side renews its key; 0: `RENEW_EVERY`.

    Raises
    ------
    MissingExtension
        There is no libssl.
    """

    def __cinit__(self, int descriptor, Keyring ring not None, int lane=-1,
                  unsigned long long renew_every=0):
        cdef void *bio
        cdef void *made = context(lane >= 0)
        if lane >= <int> ring.c.count:
            raise ValueError("there is no such lane")
        memset(&self.c, 0, sizeof(self.c))
        self.ring = ring
        self.c.descriptor = descriptor
        self.c.renew_every = renew_every or RENEW_EVERY
        self.c.ring = &ring.c
        self.c.lane = lane
        self.c.unsent = <char *> malloc(UNSENT)
        bio = tls_bio(&self.c)
        self.c.ssl = SSL_new(made)
        if self.c.unsent == NULL or bio == NULL or self.c.ssl == NULL:
            raise MemoryError("no memory for an encrypted lane")
        SSL_set_bio(self.c.ssl, bio, bio)
        if lane >= 0:
            SSL_set_connect_state(self.c.ssl)
        else:
            SSL_set_accept_state(self.c.ssl)

    def __dealloc__(self):
        if self.c.ssl != NULL:
            SSL_free(self.c.ssl)
        free(self.c.records)
        free(self.c.unsent)
        free(self.c.gather)

    @property
    def lane(self):
        """The lane whose key is used; -1 before the target's side knows."""
        return self.c.lane

    @property
    def done(self):
        """Whether the connection is established, by both sides' proof that they have the key."""
        return self.c.established

    @property
    def renewals(self):
        """How often this side has renewed its key."""
        return self.c.renewals

    @property
    def writes(self):
        """Whether it waits for room in the socket, not for bytes."""
        return self.c.unsent_end > 0

    def proceed(self):
        """Go on as far as is possible without waiting; whether it is done.

        Raises
        ------
        OSError
            The other side does not have the key, or does not speak TLS 1.3, or is gone.
        """
        cdef int n
        if self.c.established:
            return True
        with nogil:
            self.c.starved = False
            n = tls_push(&self.c)
            if n == 0:
                n = SSL_do_handshake(self.c.ssl)
            elif n == 1:
                n = 0
                self.c.starved = True
        if self.c.starved and self.c.error == 0:
            return False
        if n != 1:
            raise self.refusal()
        if not SSL_session_reused(self.c.ssl):
            raise OSError(errno.EACCES, "it did not use the key of this session")
        if SSL_version(self.c.ssl) != RPMEM_TLS1_3:
            raise OSError(errno.EPROTO, "it does not speak TLS 1.3")
        self.c.records = <char *> malloc(RECORDS)
        self.c.gather = <char *> malloc(RECORD)
        if self.c.records == NULL or self.c.gather == NULL:
            raise MemoryError("no memory for an encrypted lane")
        self.c.established = True
        return True

    cdef object refusal(self):
        """The error for a handshake that failed."""
        cdef const char *reason
        number = self.c.error or errno.EACCES
        text = os.strerror(number) if self.c.error else "it ended the handshake"
        reason = ERR_reason_error_string(ERR_peek_last_error())
        if not self.c.error and reason != NULL:
            text = (<bytes> reason).decode(errors="replace")
        ERR_clear_error()
        return OSError(number, f"TLS: {text}")

    def send(self, bytes data not None):
        """Encrypt and send `data`; how many bytes were taken, the last of them once all have left.

        Raises
        ------
        OSError
            The connection has ended.
        """
        cdef transport_t carrier = self.transport()
        cdef iovec part
        part.iov_base = <char *> data
        part.iov_len = len(data)
        n = carrier.send(&carrier, &part, 1)
        if n < 0:
            raise OSError(-n, os.strerror(-n))
        return n

    def receive(self, size_t most):
        """Return up to so many bytes; b"": none now.

        Raises
        ------
        OSError
            The connection has ended.
        """
        cdef transport_t carrier = self.transport()
        cdef bytearray room = bytearray(most)
        cdef iovec part
        part.iov_base = <char *> room
        part.iov_len = most
        n = carrier.receive(&carrier, &part, 1)
        if n < 0:
            raise OSError(-n, os.strerror(-n))
        return bytes(room[:n])

    cdef transport_t transport(self) except *:
        if not self.c.established:
            raise ValueError("the handshake is not done")
        return tls_transport(&self.c)
