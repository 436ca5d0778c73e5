/* One connection of the floors: plain, or TLS 1.3 with an external key, on the socket or in memory. */
#include "floor.h"

#include <openssl/err.h>
#include <poll.h>
#include <sys/socket.h>

static const uint64_t SERVER_POLL_NS = 2000000;

void parse_waiting(struct waiting *waiting, const char *text)
{
	static const struct {
		const char *name;
		uint64_t patience;
	} kinds[] = {{"spin", 0}, {"pause", 32}, {"yield", 1}};

	*waiting = (struct waiting){0, 0};
	if (!strcmp(text, "block"))
		return;
	for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++) {
		size_t length = strlen(kinds[i].name);

		if (strncmp(text, kinds[i].name, length))
			continue;
		waiting->patience = kinds[i].patience;
		waiting->poll_ns = text[length] ? parse_size(text + length) * 1000 : UINT64_MAX;
		return;
	}
	die("not a way to wait: %s", text);
}

static int flags_of(const struct link *link)
{
	return MSG_NOSIGNAL | (link->waiting.poll_ns ? MSG_DONTWAIT : 0);
}

/* Called when there was nothing. */
static void rest(struct link *link, short events)
{
	if (++link->empty == 1)
		link->since = now_ns();
	if (link->waiting.patience && link->empty % link->waiting.patience == 0)
		sched_yield();
	else
		__builtin_ia32_pause();
	if (link->waiting.poll_ns != UINT64_MAX && now_ns() - link->since > link->waiting.poll_ns) {
		struct pollfd p = {link->fd, events, 0};

		poll(&p, 1, -1);
		link->empty = 0;
	}
}

static void refused(const char *what)
{
	ERR_print_errors_fp(stderr);
	die("%s: %s", what, strerror(errno));
}

static void raw_put(struct link *link, const uint8_t *data, size_t size)
{
	while (size) {
		ssize_t n = send(link->fd, data, size, flags_of(link));

		if (n > 0) {
			data += n;
			size -= (size_t)n;
			link->empty = 0;
		} else if (errno == EAGAIN) {
			rest(link, POLLOUT);
		} else if (errno != EINTR) {
			die("send: %s", strerror(errno));
		}
	}
}

static size_t raw_get(struct link *link, void *where, size_t size)
{
	for (;;) {
		ssize_t n = recv(link->fd, where, size, flags_of(link));

		if (n >= 0) {
			link->empty = 0;
			return (size_t)n;
		}
		if (errno == ECONNRESET)
			return 0;
		if (errno == EAGAIN)
			rest(link, POLLIN);
		else if (errno != EINTR)
			die("recv: %s", strerror(errno));
	}
}

/* --- TLS: the key is known to both, nobody has a certificate ------------------------------------ */

static unsigned int give_key(unsigned char *key, unsigned int room)
{
	if (room < 32)
		return 0;
	memset(key, 7, 32);
	return 32;
}

static unsigned int client_key(SSL *ssl, const char *hint, char *identity, unsigned int identity_room,
			       unsigned char *key, unsigned int room)
{
	(void)ssl;
	(void)hint;
	snprintf(identity, identity_room, "floor");
	return give_key(key, room);
}

static unsigned int server_key(SSL *ssl, const char *identity, unsigned char *key, unsigned int room)
{
	(void)ssl;
	(void)identity;
	return give_key(key, room);
}

static SSL_CTX *context(int server)
{
	SSL_CTX *ctx = SSL_CTX_new(TLS_method());

	if (!ctx || !SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION) ||
	    !SSL_CTX_set_ciphersuites(ctx, "TLS_AES_128_GCM_SHA256"))
		refused("context");
	SSL_CTX_set_num_tickets(ctx, 0);
	SSL_CTX_set_options(ctx, SSL_OP_IGNORE_UNEXPECTED_EOF);
	SSL_CTX_set_read_ahead(ctx, 1);
	SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	if (server)
		SSL_CTX_set_psk_server_callback(ctx, server_key);
	else
		SSL_CTX_set_psk_client_callback(ctx, client_key);
	return ctx;
}

/* Sends the records that are waiting, from where they lie. */
static void flush_records(struct link *link)
{
	char *data;
	long size = BIO_get_mem_data(link->out, &data);

	if (size > 0) {
		raw_put(link, (uint8_t *)data, (size_t)size);
		(void)BIO_reset(link->out);
	}
}

static int take_records(struct link *link)
{
	size_t n = raw_get(link, link->records, RECORDS * (RECORD + 256));

	return n && BIO_write(link->in, link->records, (int)n) == (int)n;
}

/* SSL_read that finds nothing is dear, so it is asked for only when the socket has something. */
static void await_readable(struct link *link)
{
	char c;

	while (link->waiting.poll_ns && recv(link->fd, &c, 1, MSG_PEEK | MSG_DONTWAIT) < 0) {
		if (errno != EAGAIN)
			return;
		rest(link, POLLIN);
	}
	link->empty = 0;
}

/* Something could not go on: waits for what it needs; 0 at the end of the connection. */
static int unblock(struct link *link, int result)
{
	switch (SSL_get_error(link->ssl, result)) {
	case SSL_ERROR_WANT_READ:
		if (link->cipher == IN_MEMORY) {
			flush_records(link);
			return take_records(link);
		}
		await_readable(link);
		return 1;
	case SSL_ERROR_WANT_WRITE:
		rest(link, POLLOUT);
		return 1;
	case SSL_ERROR_SSL:
		refused("TLS");
		return 0;
	default:
		return 0;
	}
}

static void shake_hands(struct link *link, int server)
{
	int result;

	link->ssl = SSL_new(context(server));
	if (!link->ssl)
		refused("TLS");
	if (link->cipher == IN_MEMORY) {
		link->records = malloc(RECORDS * (RECORD + 256));
		link->in = BIO_new(BIO_s_mem());
		link->out = BIO_new(BIO_s_mem());
		SSL_set_bio(link->ssl, link->in, link->out);
		BIO_set_mem_eof_return(link->in, -1);
		BIO_set_mem_eof_return(link->out, -1);
	} else {
		SSL_set_fd(link->ssl, link->fd);
	}
	while ((result = server ? SSL_accept(link->ssl) : SSL_connect(link->ssl)) != 1)
		if (!unblock(link, result))
			refused("handshake");
	if (link->cipher == IN_MEMORY)
		flush_records(link);
	if (!SSL_session_reused(link->ssl))
		die("the handshake did not use the key");
}

/* --- both -------------------------------------------------------------------------------------- */

void link_open(struct link *link, int fd, enum cipher cipher, const struct waiting *waiting, int server)
{
	*link = (struct link){.fd = fd, .cipher = cipher, .waiting = *waiting};
	if (server && waiting->poll_ns > SERVER_POLL_NS)
		link->waiting.poll_ns = SERVER_POLL_NS; /* others have their turn then */
	if (cipher == PLAIN)
		return;
	if (cipher == ON_SOCKET && waiting->poll_ns)
		fcntl(fd, F_SETFL, O_NONBLOCK);
	shake_hands(link, server);
}

void link_put(struct link *link, const void *data, size_t size)
{
	const uint8_t *from = data;

	if (link->cipher == PLAIN) {
		raw_put(link, from, size);
		return;
	}
	while (size) {
		size_t part = link->cipher == IN_MEMORY && size > RECORDS * RECORD ? RECORDS * RECORD : size;
		int n = SSL_write(link->ssl, from, (int)part);

		if (n > 0) {
			from += n;
			size -= (size_t)n;
			/* a record is sent while the next is made, except where all fit into a call */
			if (link->cipher == IN_MEMORY && (!size || BIO_ctrl_pending(link->out) > RECORDS * RECORD))
				flush_records(link);
		} else if (!unblock(link, n)) {
			refused("SSL_write");
		}
	}
}

size_t link_get(struct link *link, void *where, size_t size)
{
	if (link->cipher == PLAIN)
		return raw_get(link, where, size);
	for (;;) {
		if (!SSL_has_pending(link->ssl)) {
			if (link->cipher == ON_SOCKET)
				await_readable(link);
			else if (!BIO_ctrl_pending(link->in) && !take_records(link))
				return 0;
		}
		int n = SSL_read(link->ssl, where, size > INT32_MAX ? INT32_MAX : (int)size);

		if (n > 0)
			return (size_t)n;
		if (!unblock(link, n))
			return 0;
	}
}
