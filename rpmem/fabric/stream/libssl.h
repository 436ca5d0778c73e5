/* OpenSSL's libssl, 3.0 or later, as it is found at run time: what rpmem uses of it, and no more.
 *
 * Nothing is linked and no header of OpenSSL is needed. The constants below are part of its ABI.
 */
#ifndef RPMEM_LIBSSL_H
#define RPMEM_LIBSSL_H

#include <dlfcn.h>
#include <stddef.h>
#include <stdint.h>

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

/* F(result, name, parameters) */
#define RPMEM_LIBSSL(F)                                                                            \
	F(unsigned long, OpenSSL_version_num, (void))                                              \
	F(const void *, TLS_client_method, (void))                                                 \
	F(const void *, TLS_server_method, (void))                                                 \
	F(void *, SSL_CTX_new, (const void *method))                                               \
	F(long, SSL_CTX_ctrl, (void *ctx, int what, long larg, void *parg))                        \
	F(uint64_t, SSL_CTX_set_options, (void *ctx, uint64_t options))                            \
	F(uint64_t, SSL_CTX_clear_options, (void *ctx, uint64_t options))                          \
	F(int, SSL_CTX_set_ciphersuites, (void *ctx, const char *list))                            \
	F(int, SSL_CTX_set_num_tickets, (void *ctx, size_t count))                                 \
	F(int, SSL_CTX_set_max_early_data, (void *ctx, uint32_t most))                             \
	F(int, SSL_CTX_set_recv_max_early_data, (void *ctx, uint32_t most))                        \
	F(void, SSL_CTX_set_verify, (void *ctx, int mode, void *callback))                         \
	F(void, SSL_CTX_set_psk_client_callback, (void *ctx, rpmem_client_key callback))           \
	F(void, SSL_CTX_set_psk_server_callback, (void *ctx, rpmem_server_key callback))           \
	F(void *, SSL_new, (void *ctx))                                                            \
	F(void, SSL_free, (void *ssl))                                                             \
	F(void, SSL_set_bio, (void *ssl, void *in, void *out))                                     \
	F(void *, SSL_get_rbio, (const void *ssl))                                                 \
	F(void, SSL_set_connect_state, (void *ssl))                                                \
	F(void, SSL_set_accept_state, (void *ssl))                                                 \
	F(int, SSL_do_handshake, (void *ssl))                                                      \
	F(int, SSL_version, (const void *ssl))                                                     \
	F(int, SSL_session_reused, (const void *ssl))                                              \
	F(int, SSL_read, (void *ssl, void *where, int size))                                       \
	F(int, SSL_write, (void *ssl, const void *data, int size))                                 \
	F(int, SSL_pending, (const void *ssl))                                                     \
	F(int, SSL_key_update, (void *ssl, int kind))                                              \
	F(int, SSL_shutdown, (void *ssl))                                                          \
	F(int, SSL_get_shutdown, (const void *ssl))                                                \
	F(void *, BIO_meth_new, (int type, const char *name))                                      \
	F(int, BIO_meth_set_write, (void *method, int (*write)(void *, const char *, int)))        \
	F(int, BIO_meth_set_read, (void *method, int (*read)(void *, char *, int)))                \
	F(int, BIO_meth_set_ctrl, (void *method, long (*ctrl)(void *, int, long, void *)))         \
	F(void *, BIO_new, (const void *method))                                                   \
	F(void, BIO_set_data, (void *bio, void *data))                                             \
	F(void *, BIO_get_data, (void *bio))                                                       \
	F(void, BIO_set_init, (void *bio, int done))                                               \
	F(void, BIO_set_flags, (void *bio, int flags))                                             \
	F(void, BIO_clear_flags, (void *bio, int flags))                                           \
	F(unsigned long, ERR_peek_last_error, (void))                                              \
	F(const char *, ERR_reason_error_string, (unsigned long error))                            \
	F(void, ERR_clear_error, (void))

struct rpmem_libssl {
#define RPMEM_POINTER(result, name, parameters) result(*name) parameters;
	RPMEM_LIBSSL(RPMEM_POINTER)
#undef RPMEM_POINTER
};

/* Finds everything; the name of what is missing, or NULL. */
static inline const char *rpmem_libssl_find(struct rpmem_libssl *found, void *library)
{
#define RPMEM_FIND(result, name, parameters)                                                       \
	if (!(found->name = (result(*) parameters)dlsym(library, #name)))                          \
		return #name;
	RPMEM_LIBSSL(RPMEM_FIND)
#undef RPMEM_FIND
	return NULL;
}

#endif
