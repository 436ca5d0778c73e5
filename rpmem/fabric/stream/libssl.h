/* OpenSSL's libssl, 3.0 or later, opened at run time: what rpmem uses of it, and no more.
 *
 * No header of OpenSSL is needed: the constants below are part of its ABI.
 */
#ifndef RPMEM_LIBSSL_H
#define RPMEM_LIBSSL_H

#include <stddef.h>
#include <stdint.h>

#include "rpmem/base/library.h"

enum {
	RPMEM_TLS1_3 = 0x0304,
	RPMEM_CTRL_MODE = 33,
	RPMEM_CTRL_SET_SESS_CACHE_MODE = 44,
	RPMEM_CTRL_SET_MIN_PROTO_VERSION = 123,
	RPMEM_CTRL_SET_MAX_PROTO_VERSION = 124,
	RPMEM_SESS_CACHE_OFF = 0,
	RPMEM_MODE_ACCEPT_MOVING_WRITE_BUFFER = 2,
	RPMEM_VERIFY_NONE = 0,
	RPMEM_VERIFY_PEER = 1,
	RPMEM_RECEIVED_SHUTDOWN = 2,
	RPMEM_KEY_UPDATE_NOT_REQUESTED = 0,
	RPMEM_BIO_READ_AGAIN = 0x09, /* BIO_FLAGS_READ and BIO_FLAGS_SHOULD_RETRY */
	RPMEM_BIO_AGAIN = 0x0f,
	RPMEM_BIO_CTRL_FLUSH = 11,
	RPMEM_BIO_TYPE = 0x0400 | 100,
};

#define RPMEM_OP_ALLOW_NO_DHE_KEX (1ull << 10)
#define RPMEM_OP_NO_TICKET (1ull << 14)
#define RPMEM_OP_NO_COMPRESSION (1ull << 17)
#define RPMEM_OP_ENABLE_MIDDLEBOX_COMPAT (1ull << 20)
#define RPMEM_OP_PREFER_NO_DHE_KEX (1ull << 35)

typedef unsigned int (*rpmem_client_key)(void *ssl, const char *hint, char *identity, unsigned int identity_room,
					 unsigned char *key, unsigned int key_room);
typedef unsigned int (*rpmem_server_key)(void *ssl, const char *identity, unsigned char *key, unsigned int key_room);

#define RPMEM_SSL(SEEK, result, name, parameters, arguments) \
	SEEK(result, name, "OPENSSL_3.0.0", parameters, arguments)

#define RPMEM_LIBSSL_CONTEXTS(SEEK)                                                        \
	RPMEM_SSL(SEEK, const void *, TLS_client_method, (void), ())                       \
	RPMEM_SSL(SEEK, const void *, TLS_server_method, (void), ())                       \
	RPMEM_SSL(SEEK, void *, SSL_CTX_new, (const void *method), (method))               \
	RPMEM_SSL(SEEK, long, SSL_CTX_ctrl,                                                \
	    (void *ctx, int what, long larg, void *parg), (ctx, what, larg, parg))         \
	RPMEM_SSL(SEEK, uint64_t, SSL_CTX_set_options,                                     \
	    (void *ctx, uint64_t options), (ctx, options))                                 \
	RPMEM_SSL(SEEK, uint64_t, SSL_CTX_clear_options,                                   \
	    (void *ctx, uint64_t options), (ctx, options))                                 \
	RPMEM_SSL(SEEK, int, SSL_CTX_set_ciphersuites,                                     \
	    (void *ctx, const char *list), (ctx, list))                                    \
	RPMEM_SSL(SEEK, int, SSL_CTX_set_num_tickets,                                      \
	    (void *ctx, size_t count), (ctx, count))                                       \
	RPMEM_SSL(SEEK, int, SSL_CTX_set_max_early_data,                                   \
	    (void *ctx, uint32_t most), (ctx, most))                                       \
	RPMEM_SSL(SEEK, int, SSL_CTX_set_recv_max_early_data,                              \
	    (void *ctx, uint32_t most), (ctx, most))                                       \
	RPMEM_SSL(SEEK, void, SSL_CTX_set_verify,                                          \
	    (void *ctx, int mode, void *callback), (ctx, mode, callback))                  \
	RPMEM_SSL(SEEK, void, SSL_CTX_set_psk_client_callback,                             \
	    (void *ctx, rpmem_client_key callback), (ctx, callback))                       \
	RPMEM_SSL(SEEK, void, SSL_CTX_set_psk_server_callback,                             \
	    (void *ctx, rpmem_server_key callback), (ctx, callback))

#define RPMEM_LIBSSL_CONNECTIONS(SEEK)                                                     \
	RPMEM_SSL(SEEK, void *, SSL_new, (void *ctx), (ctx))                               \
	RPMEM_SSL(SEEK, void, SSL_free, (void *ssl), (ssl))                                \
	RPMEM_SSL(SEEK, void, SSL_set_bio,                                                 \
	    (void *ssl, void *in, void *out), (ssl, in, out))                              \
	RPMEM_SSL(SEEK, void *, SSL_get_rbio, (const void *ssl), (ssl))                    \
	RPMEM_SSL(SEEK, void, SSL_set_connect_state, (void *ssl), (ssl))                   \
	RPMEM_SSL(SEEK, void, SSL_set_accept_state, (void *ssl), (ssl))                    \
	RPMEM_SSL(SEEK, int, SSL_do_handshake, (void *ssl), (ssl))                         \
	RPMEM_SSL(SEEK, int, SSL_version, (const void *ssl), (ssl))                        \
	RPMEM_SSL(SEEK, int, SSL_session_reused, (const void *ssl), (ssl))                 \
	RPMEM_SSL(SEEK, int, SSL_read,                                                     \
	    (void *ssl, void *where, int size), (ssl, where, size))                        \
	RPMEM_SSL(SEEK, int, SSL_write,                                                    \
	    (void *ssl, const void *data, int size), (ssl, data, size))                    \
	RPMEM_SSL(SEEK, int, SSL_pending, (const void *ssl), (ssl))                        \
	RPMEM_SSL(SEEK, int, SSL_key_update, (void *ssl, int kind), (ssl, kind))           \
	RPMEM_SSL(SEEK, int, SSL_shutdown, (void *ssl), (ssl))                             \
	RPMEM_SSL(SEEK, int, SSL_get_shutdown, (const void *ssl), (ssl))

#define RPMEM_LIBSSL_REST(SEEK)                                                            \
	RPMEM_SSL(SEEK, void *, BIO_meth_new, (int type, const char *name), (type, name))  \
	RPMEM_SSL(SEEK, int, BIO_meth_set_write,                                           \
	    (void *method, int (*write)(void *, const char *, int)), (method, write))      \
	RPMEM_SSL(SEEK, int, BIO_meth_set_read,                                            \
	    (void *method, int (*read)(void *, char *, int)), (method, read))              \
	RPMEM_SSL(SEEK, int, BIO_meth_set_ctrl,                                            \
	    (void *method, long (*ctrl)(void *, int, long, void *)), (method, ctrl))       \
	RPMEM_SSL(SEEK, void *, BIO_new, (const void *method), (method))                   \
	RPMEM_SSL(SEEK, void, BIO_set_data, (void *bio, void *data), (bio, data))          \
	RPMEM_SSL(SEEK, void *, BIO_get_data, (void *bio), (bio))                          \
	RPMEM_SSL(SEEK, void, BIO_set_init, (void *bio, int done), (bio, done))            \
	RPMEM_SSL(SEEK, void, BIO_set_flags, (void *bio, int flags), (bio, flags))         \
	RPMEM_SSL(SEEK, void, BIO_clear_flags, (void *bio, int flags), (bio, flags))       \
	RPMEM_SSL(SEEK, unsigned long, ERR_peek_last_error, (void), ())                    \
	RPMEM_SSL(SEEK, const char *, ERR_reason_error_string,                             \
	    (unsigned long error), (error))                                                \
	RPMEM_SSL(SEEK, void, ERR_clear_error, (void), ())

#define RPMEM_LIBSSL_LIST(SEEK)       \
	RPMEM_LIBSSL_CONTEXTS(SEEK)    \
	RPMEM_LIBSSL_CONNECTIONS(SEEK) \
	RPMEM_LIBSSL_REST(SEEK)

RPMEM_LIBRARY(rpmem_libssl, RPMEM_LIBSSL_LIST)

#endif
