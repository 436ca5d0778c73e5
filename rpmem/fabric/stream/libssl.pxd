# cython: language_level=3
"""OpenSSL's libssl, opened when it is first needed."""

from libc.stdint cimport uint32_t, uint64_t


ctypedef int (*bio_write_t)(void *bio, const char *data, int size) noexcept nogil
ctypedef int (*bio_read_t)(void *bio, char *where, int size) noexcept nogil
ctypedef long (*bio_ctrl_t)(void *bio, int what, long number, void *data) noexcept nogil

cdef extern from "libssl.h" nogil:
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

    struct libssl_t "rpmem_libssl":
        unsigned long (*OpenSSL_version_num)() noexcept nogil
        const void *(*TLS_client_method)() noexcept nogil
        const void *(*TLS_server_method)() noexcept nogil
        void *(*SSL_CTX_new)(const void *) noexcept nogil
        long (*SSL_CTX_ctrl)(void *, int, long, void *) noexcept nogil
        uint64_t (*SSL_CTX_set_options)(void *, uint64_t) noexcept nogil
        uint64_t (*SSL_CTX_clear_options)(void *, uint64_t) noexcept nogil
        int (*SSL_CTX_set_ciphersuites)(void *, const char *) noexcept nogil
        int (*SSL_CTX_set_num_tickets)(void *, size_t) noexcept nogil
        int (*SSL_CTX_set_max_early_data)(void *, uint32_t) noexcept nogil
        int (*SSL_CTX_set_recv_max_early_data)(void *, uint32_t) noexcept nogil
        void (*SSL_CTX_set_verify)(void *, int, void *) noexcept nogil
        void (*SSL_CTX_set_psk_client_callback)(void *, client_key_t) noexcept nogil
        void (*SSL_CTX_set_psk_server_callback)(void *, server_key_t) noexcept nogil
        void *(*SSL_new)(void *) noexcept nogil
        void (*SSL_free)(void *) noexcept nogil
        void (*SSL_set_bio)(void *, void *, void *) noexcept nogil
        void *(*SSL_get_rbio)(const void *) noexcept nogil
        void (*SSL_set_connect_state)(void *) noexcept nogil
        void (*SSL_set_accept_state)(void *) noexcept nogil
        int (*SSL_do_handshake)(void *) noexcept nogil
        int (*SSL_version)(const void *) noexcept nogil
        int (*SSL_session_reused)(const void *) noexcept nogil
        int (*SSL_read)(void *, void *, int) noexcept nogil
        int (*SSL_write)(void *, const void *, int) noexcept nogil
        int (*SSL_pending)(const void *) noexcept nogil
        int (*SSL_key_update)(void *, int) noexcept nogil
        int (*SSL_shutdown)(void *) noexcept nogil
        int (*SSL_get_shutdown)(const void *) noexcept nogil
        void *(*BIO_meth_new)(int, const char *) noexcept nogil
        int (*BIO_meth_set_write)(void *, bio_write_t) noexcept nogil
        int (*BIO_meth_set_read)(void *, bio_read_t) noexcept nogil
        int (*BIO_meth_set_ctrl)(void *, bio_ctrl_t) noexcept nogil
        void *(*BIO_new)(const void *) noexcept nogil
        void (*BIO_set_data)(void *, void *) noexcept nogil
        void *(*BIO_get_data)(void *) noexcept nogil
        void (*BIO_set_init)(void *, int) noexcept nogil
        void (*BIO_set_flags)(void *, int) noexcept nogil
        void (*BIO_clear_flags)(void *, int) noexcept nogil
        unsigned long (*ERR_peek_last_error)() noexcept nogil
        const char *(*ERR_reason_error_string)(unsigned long) noexcept nogil
        void (*ERR_clear_error)() noexcept nogil

    const char *rpmem_libssl_find(libssl_t *found, void *library)


# Its functions, once `require` has returned.
cdef libssl_t libssl
# Open it; raises MissingExtension if that is not possible.
cdef int require() except -1
