# cython: language_level=3
"""The part of OpenSSL's libssl that rpmem uses; `bind_libssl` comes before any of it."""

from libc.stdint cimport uint32_t, uint64_t

from rpmem.base.library cimport bind, rpmem_symbol_t


ctypedef int (*bio_write_t)(void *bio, const char *data, int size) noexcept nogil
ctypedef int (*bio_read_t)(void *bio, char *where, int size) noexcept nogil
ctypedef long (*bio_ctrl_t)(void *bio, int what, long number, void *data) noexcept nogil

cdef extern from "rpmem/fabric/stream/libssl.h" nogil:
    const rpmem_symbol_t *rpmem_libssl
    enum:
        RPMEM_TLS1_3
        RPMEM_CTRL_MODE
        RPMEM_CTRL_SET_SESS_CACHE_MODE
        RPMEM_CTRL_SET_MIN_PROTO_VERSION
        RPMEM_CTRL_SET_MAX_PROTO_VERSION
        RPMEM_SESS_CACHE_OFF
        RPMEM_MODE_ACCEPT_MOVING_WRITE_BUFFER
        RPMEM_VERIFY_NONE
        RPMEM_VERIFY_PEER
        RPMEM_RECEIVED_SHUTDOWN
        RPMEM_KEY_UPDATE_NOT_REQUESTED
        RPMEM_BIO_READ_AGAIN
        RPMEM_BIO_AGAIN
        RPMEM_BIO_CTRL_FLUSH
        RPMEM_BIO_TYPE
    uint64_t RPMEM_OP_ALLOW_NO_DHE_KEX
    uint64_t RPMEM_OP_NO_TICKET
    uint64_t RPMEM_OP_NO_COMPRESSION
    uint64_t RPMEM_OP_ENABLE_MIDDLEBOX_COMPAT
    uint64_t RPMEM_OP_PREFER_NO_DHE_KEX

    ctypedef unsigned int (*client_key_t "rpmem_client_key")(
        void *ssl, const char *hint, char *identity, unsigned int identity_room,
        unsigned char *key, unsigned int key_room) noexcept nogil
    ctypedef unsigned int (*server_key_t "rpmem_server_key")(
        void *ssl, const char *identity, unsigned char *key, unsigned int key_room) noexcept nogil

    const void *TLS_client_method()
    const void *TLS_server_method()
    void *SSL_CTX_new(const void *)
    long SSL_CTX_ctrl(void *, int, long, void *)
    uint64_t SSL_CTX_set_options(void *, uint64_t)
    uint64_t SSL_CTX_clear_options(void *, uint64_t)
    int SSL_CTX_set_ciphersuites(void *, const char *)
    int SSL_CTX_set_num_tickets(void *, size_t)
    int SSL_CTX_set_max_early_data(void *, uint32_t)
    int SSL_CTX_set_recv_max_early_data(void *, uint32_t)
    void SSL_CTX_set_verify(void *, int, void *)
    void SSL_CTX_set_psk_client_callback(void *, client_key_t)
    void SSL_CTX_set_psk_server_callback(void *, server_key_t)
    void *SSL_new(void *)
    void SSL_free(void *)
    void SSL_set_bio(void *, void *, void *)
    void *SSL_get_rbio(const void *)
    void SSL_set_connect_state(void *)
    void SSL_set_accept_state(void *)
    int SSL_do_handshake(void *)
    int SSL_version(const void *)
    int SSL_session_reused(const void *)
    int SSL_read(void *, void *, int)
    int SSL_write(void *, const void *, int)
    int SSL_pending(const void *)
    int SSL_key_update(void *, int)
    int SSL_shutdown(void *)
    int SSL_get_shutdown(const void *)
    void *BIO_meth_new(int, const char *)
    int BIO_meth_set_write(void *, bio_write_t)
    int BIO_meth_set_read(void *, bio_read_t)
    int BIO_meth_set_ctrl(void *, bio_ctrl_t)
    void *BIO_new(const void *)
    void BIO_set_data(void *, void *)
    void *BIO_get_data(void *)
    void BIO_set_init(void *, int)
    void BIO_set_flags(void *, int)
    void BIO_clear_flags(void *, int)
    unsigned long ERR_peek_last_error()
    const char *ERR_reason_error_string(unsigned long)
    void ERR_clear_error()


cdef inline int bind_libssl() except -1:
    """Open libssl, or raise MissingExtension."""
    return bind("libssl", rpmem_libssl)
