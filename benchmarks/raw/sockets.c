/* Plain TCP: SIZE bytes one way, 8 bytes back; spinning or blocking, no fabric at all.
 *
 *   sockets serve [--wait]            prints its port as JSON; data lands in one buffer
 *   sockets drive --port P [--wait]   takes the same job lines as drive.c; its exchange: "send"
 */
#include "common.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

enum { LARGEST = 64 << 20 };

static int blocking;
static uint64_t spin_ns = 2000000;

static uint8_t *buffer(void)
{
	void *p = mmap(NULL, LARGEST, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	if (p == MAP_FAILED)
		die("mmap: %s", strerror(errno));
	return p;
}

static void get(int fd, void *where, size_t size, int server)
{
	uint64_t since = 0, spins = 0;

	while (size) {
		ssize_t n = recv(fd, where, size, blocking ? 0 : MSG_DONTWAIT);

		if (n > 0) {
			where = (uint8_t *)where + n;
			size -= (size_t)n;
			spins = 0;
		} else if (n == 0) {
			exit(0);
		} else if (errno != EAGAIN && errno != EINTR) {
			die("recv: %s", strerror(errno));
		} else {
			poll_pause(&spins);
			if (!server || spins % 64)
				continue;
			uint64_t now = now_ns();

			if (spins == 64)
				since = now;
			if (now - since > spin_ns) {
				struct pollfd p = {fd, POLLIN, 0};

				poll(&p, 1, -1);
				spins = 0;
			}
		}
	}
}

static void put(int fd, const void *header, size_t header_size, const void *data, size_t size)
{
	struct iovec iov[2] = {{(void *)header, header_size}, {(void *)data, size}};
	struct msghdr message = {.msg_iov = iov, .msg_iovlen = 2};

	while (iov[0].iov_len + iov[1].iov_len) {
		ssize_t n = sendmsg(fd, &message, MSG_NOSIGNAL | (blocking ? 0 : MSG_DONTWAIT));

		if (n < 0 && errno != EAGAIN && errno != EINTR)
			die("send: %s", strerror(errno));
		for (int i = 0; i < 2 && n > 0; i++) {
			size_t part = (size_t)n < iov[i].iov_len ? (size_t)n : iov[i].iov_len;

			iov[i].iov_base = (uint8_t *)iov[i].iov_base + part;
			iov[i].iov_len -= part;
			n -= (ssize_t)part;
		}
	}
}

static void no_delay(int fd)
{
	int on = 1;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

static void serve(void)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
	socklen_t length = sizeof(a);
	int listener = socket(AF_INET, SOCK_STREAM, 0), fd;
	uint8_t *target = buffer();

	if (bind(listener, (void *)&a, sizeof(a)) || listen(listener, 1) ||
	    getsockname(listener, (void *)&a, &length))
		die("listen: %s", strerror(errno));
	printf("{\"port\":%d}\n", ntohs(a.sin_port));
	fflush(stdout);
	fd = accept(listener, NULL, NULL);
	no_delay(fd);
	for (;;) {
		uint64_t size;

		get(fd, &size, sizeof(size), 1);
		if (size > LARGEST)
			die("too large");
		get(fd, target, size, 1);
		put(fd, &size, sizeof(size), NULL, 0);
	}
}

static void drive(const char *port)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
	char line[256], exchange[32], size_text[24], rest[128];
	unsigned long long count, warmup;
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	uint8_t *source = buffer();

	a.sin_port = htons((uint16_t)atoi(port));
	if (connect(fd, (void *)&a, sizeof(a)))
		die("connect: %s", strerror(errno));
	no_delay(fd);
	printf("{\"connected\":1,\"clock_ns\":%llu}\n", (unsigned long long)clock_cost());
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin)) {
		if (sscanf(line, "%31s %23s %llu %llu %127[^\n]", exchange, size_text, &count, &warmup, rest) < 4)
			die("not a job: %s", line);
		uint64_t size = parse_size(size_text), *samples = calloc(count + 1, sizeof(*samples)), wall = 0;

		if (size > LARGEST)
			die("too large");
		for (uint64_t i = 0; i < warmup + count; i++) {
			uint64_t word, start = now_ns();

			if (i == warmup)
				wall = start;
			put(fd, &size, sizeof(size), source, size);
			get(fd, &word, sizeof(word), 0);
			if (i >= warmup)
				samples[i - warmup] = now_ns() - start;
		}
		put_samples(exchange, size, now_ns() - wall, size * count, samples, count);
		free(samples);
	}
}

int main(int argc, char **argv)
{
	const char *port = NULL;

	for (int i = 2; i < argc; i++) {
		if (!strcmp(argv[i], "--wait"))
			blocking = 1;
		else if (!strcmp(argv[i], "--port") && i + 1 < argc)
			port = argv[++i];
	}
	if (argc > 1 && !strcmp(argv[1], "serve"))
		serve();
	else if (argc > 1 && !strcmp(argv[1], "drive") && port)
		drive(port);
	else
		die("usage: sockets serve|drive [--port P] [--wait]");
	return 0;
}
