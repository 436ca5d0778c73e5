/* librpma: WRITE + flush and READ between two processes, over a verbs device.
 *
 *   rpma serve ADDRESS SIZE           prints its port as JSON; anonymous memory
 *   rpma drive ADDRESS PORT SIZE      job lines as drive.c; exchanges write-flush, read
 *
 * The flush is of the visible kind: without persistent memory there is no other.
 */
#include "common.h"

#include <librpma.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <netinet/in.h>
#include <infiniband/verbs.h>

static void ok(int rc, const char *what)
{
	if (rc)
		die("%s: %s", what, rpma_err_2str(rc));
}

static struct rpma_peer *peer_at(const char *address, enum rpma_util_ibv_context_type type)
{
	struct ibv_context *context;
	struct rpma_peer *peer;

	ok(rpma_utils_get_ibv_context(address, type, &context), "no verbs device at that address");
	ok(rpma_peer_new(context, &peer), "rpma_peer_new");
	return peer;
}

static void *memory(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	if (p == MAP_FAILED)
		die("mmap: %s", strerror(errno));
	return p;
}

static void established(struct rpma_conn *conn)
{
	enum rpma_conn_event event;

	ok(rpma_conn_next_event(conn, &event), "rpma_conn_next_event");
	if (event != RPMA_CONN_ESTABLISHED)
		die("no connection: %s", rpma_utils_conn_event_2str(event));
}

static int free_port(void)
{
	struct sockaddr_in a = {.sin_family = AF_INET};
	socklen_t length = sizeof(a);
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	if (bind(fd, (void *)&a, sizeof(a)) || getsockname(fd, (void *)&a, &length))
		die("no free port: %s", strerror(errno));
	return ntohs(a.sin_port);
}

static void serve(const char *address, uint64_t size)
{
	enum { SERVED = RPMA_MR_USAGE_READ_SRC | RPMA_MR_USAGE_WRITE_DST | RPMA_MR_USAGE_FLUSH_TYPE_VISIBILITY };
	struct rpma_conn_private_data told;
	struct rpma_conn_req *request;
	struct rpma_mr_local *mr;
	struct rpma_conn *conn;
	struct rpma_ep *ep;
	struct rpma_peer *peer = peer_at(address, RPMA_UTIL_IBV_CONTEXT_LOCAL);
	enum rpma_conn_event event;
	size_t descriptor_size;
	uint8_t descriptor[128];
	char port[16];

	snprintf(port, sizeof(port), "%d", free_port());
	ok(rpma_mr_reg(peer, memory(size), size, SERVED, &mr), "rpma_mr_reg");
	ok(rpma_mr_get_descriptor_size(mr, &descriptor_size), "rpma_mr_get_descriptor_size");
	if (descriptor_size > sizeof(descriptor))
		die("the descriptor is too large");
	ok(rpma_mr_get_descriptor(mr, descriptor), "rpma_mr_get_descriptor");
	ok(rpma_ep_listen(peer, address, port, &ep), "rpma_ep_listen");
	printf("{\"port\":%s}\n", port);
	fflush(stdout);
	told = (struct rpma_conn_private_data){descriptor, (uint8_t)descriptor_size};
	ok(rpma_ep_next_conn_req(ep, NULL, &request), "rpma_ep_next_conn_req");
	ok(rpma_conn_req_connect(&request, &told, &conn), "rpma_conn_req_connect");
	established(conn);
	rpma_conn_next_event(conn, &event);
}

static void await(struct rpma_cq *cq)
{
	struct ibv_wc wc;
	int rc;

	while ((rc = rpma_cq_get_wc(cq, 1, &wc, NULL)) == RPMA_E_NO_COMPLETION)
		continue;
	ok(rc, "rpma_cq_get_wc");
	if (wc.status != IBV_WC_SUCCESS)
		die("operation failed: %s", ibv_wc_status_str(wc.status));
}

static void drive(const char *address, const char *port, uint64_t size)
{
	struct rpma_peer *peer = peer_at(address, RPMA_UTIL_IBV_CONTEXT_REMOTE);
	struct rpma_conn_private_data told;
	struct rpma_conn_req *request;
	struct rpma_mr_remote *remote;
	struct rpma_mr_local *mr;
	struct rpma_conn *conn;
	struct rpma_cq *cq;
	char line[256], exchange[32], size_text[24], rest[128];
	unsigned long long count, warmup;

	/* the library's own flush reads into memory of its own: no usage of ours is needed for it */
	ok(rpma_mr_reg(peer, memory(size), size, RPMA_MR_USAGE_WRITE_SRC | RPMA_MR_USAGE_READ_DST, &mr), "rpma_mr_reg");
	ok(rpma_conn_req_new(peer, address, port, NULL, &request), "rpma_conn_req_new");
	ok(rpma_conn_req_connect(&request, NULL, &conn), "rpma_conn_req_connect");
	established(conn);
	ok(rpma_conn_get_private_data(conn, &told), "rpma_conn_get_private_data");
	ok(rpma_mr_remote_from_descriptor(told.ptr, told.len, &remote), "rpma_mr_remote_from_descriptor");
	ok(rpma_conn_get_cq(conn, &cq), "rpma_conn_get_cq");
	printf("{\"connected\":1}\n");
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin)) {
		if (sscanf(line, "%31s %23s %llu %llu %127[^\n]", exchange, size_text, &count, &warmup, rest) < 4)
			die("not a job: %s", line);
		uint64_t n = parse_size(size_text), *samples = calloc(count + 1, sizeof(*samples)), wall = 0;
		int reads = !strcmp(exchange, "read");

		if (n > size || (!reads && strcmp(exchange, "write-flush")))
			die("job does not fit: %s", line);
		for (uint64_t i = 0; i < warmup + count; i++) {
			uint64_t start = now_ns();

			if (i == warmup)
				wall = start;
			if (reads) {
				ok(rpma_read(conn, mr, 0, remote, 0, n, RPMA_F_COMPLETION_ALWAYS, NULL), "rpma_read");
			} else {
				ok(rpma_write(conn, remote, 0, mr, 0, n, RPMA_F_COMPLETION_ON_ERROR, NULL), "rpma_write");
				ok(rpma_flush(conn, remote, 0, n, RPMA_FLUSH_TYPE_VISIBILITY, RPMA_F_COMPLETION_ALWAYS, NULL), "rpma_flush");
			}
			await(cq);
			if (i >= warmup)
				samples[i - warmup] = now_ns() - start;
		}
		put_samples(exchange, n, now_ns() - wall, n * count, samples, count);
		free(samples);
	}
	rpma_conn_disconnect(conn);
}

int main(int argc, char **argv)
{
	if (argc == 4 && !strcmp(argv[1], "serve"))
		serve(argv[2], parse_size(argv[3]));
	else if (argc == 5 && !strcmp(argv[1], "drive"))
		drive(argv[2], argv[3], parse_size(argv[4]));
	else
		die("usage: rpma serve ADDRESS SIZE | rpma drive ADDRESS PORT SIZE");
	return 0;
}
