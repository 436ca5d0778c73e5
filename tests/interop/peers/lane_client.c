/*
 * lane_client: raw lanes over libfabric, driven from standard input.  It knows nothing of
 * any protocol: whoever drives it can break every rule of one.
 *
 *   connect PROVIDER HOST PORT LANES     lanes 0, 1, ... one after the other, no private data
 *   receive LANE SIZE                    post a receive buffer
 *   send LANE HEX
 *   write LANE ADDRESS KEY HEX           one-sided, waits for its completion
 *   await LANE MILLISECONDS              the next message: "received HEX", "error N", "timeout"
 *   event MILLISECONDS                   the next connection event: "shutdown LANE", "timeout"
 *
 * One line of answer for each command; what fails answers "failed CALL NUMBER".
 */

#include <arpa/inet.h>
#include <rdma/fabric.h>
#include <rdma/fi_cm.h>
#include <rdma/fi_domain.h>
#include <rdma/fi_endpoint.h>
#include <rdma/fi_errno.h>
#include <rdma/fi_rma.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_LANES 64
#define ROOM (1 << 20)
#define CONNECT_TIMEOUT 10000

struct lane {
	struct fid_ep *endpoint;
	struct fid_cq *queue;
	unsigned char *out;
	unsigned char *in;
};

static struct fi_info *info;
static struct fid_fabric *fabric;
static struct fid_domain *domain;
static struct fid_eq *events;
static struct lane lanes[MAX_LANES];
static unsigned count;

static void
say(const char *text)
{
	puts(text);
	fflush(stdout);
}

static bool
works(const char *call, long rc)
{
	if (rc >= 0)
		return true;
	printf("failed %s %ld\n", call, -rc);
	fflush(stdout);
	return false;
}

static size_t
from_hex(const char *text, unsigned char *out)
{
	size_t length = strlen(text) / 2;
	for (size_t i = 0; i < length && i < ROOM; i++) {
		unsigned byte;
		sscanf(text + 2 * i, "%2x", &byte);
		out[i] = (unsigned char)byte;
	}
	return length;
}

static bool
open_fabric(const char *provider, const char *host, const char *port)
{
	struct fi_info *hints = fi_allocinfo();
	hints->caps = FI_MSG | FI_RMA;
	hints->addr_format = FI_SOCKADDR;
	hints->ep_attr->type = FI_EP_MSG;
	hints->domain_attr->mr_mode = FI_MR_VIRT_ADDR | FI_MR_ALLOCATED | FI_MR_PROV_KEY;
	hints->fabric_attr->prov_name = strdup(provider);
	int rc = fi_getinfo(FI_VERSION(1, 9), host, port, 0, hints, &info);
	fi_freeinfo(hints);
	struct fi_eq_attr attributes = { .wait_obj = FI_WAIT_UNSPEC };
	return works("fi_getinfo", rc) &&
		works("fi_fabric", fi_fabric(info->fabric_attr, &fabric, NULL)) &&
		works("fi_eq_open", fi_eq_open(fabric, &attributes, &events, NULL)) &&
		works("fi_domain", fi_domain(fabric, info, &domain, NULL));
}

static bool
connect_lane(struct lane *lane)
{
	struct fi_cq_attr attributes = { .format = FI_CQ_FORMAT_MSG, .wait_obj = FI_WAIT_UNSPEC };
	struct fi_eq_cm_entry entry;
	uint32_t event;
	lane->out = calloc(1, ROOM);
	lane->in = calloc(1, ROOM);
	if (!works("fi_cq_open", fi_cq_open(domain, &attributes, &lane->queue, NULL)) ||
	    !works("fi_endpoint", fi_endpoint(domain, info, &lane->endpoint, NULL)) ||
	    !works("fi_ep_bind", fi_ep_bind(lane->endpoint, &events->fid, 0)) ||
	    !works("fi_ep_bind", fi_ep_bind(lane->endpoint, &lane->queue->fid,
			FI_TRANSMIT | FI_RECV | FI_SELECTIVE_COMPLETION)) ||
	    !works("fi_enable", fi_enable(lane->endpoint)) ||
	    !works("fi_connect", fi_connect(lane->endpoint, info->dest_addr, NULL, 0)))
		return false;
	ssize_t n = fi_eq_sread(events, &event, &entry, sizeof(entry), CONNECT_TIMEOUT, 0);
	if (!works("fi_eq_sread", n))
		return false;
	return works("FI_CONNECTED", event == FI_CONNECTED ? 0 : -1);
}

static void
cmd_connect(char **word)
{
	unsigned wanted = (unsigned)atoi(word[4]);
	if (!open_fabric(word[1], word[2], word[3]))
		return;
	for (count = 0; count < wanted && count < MAX_LANES; count++) {
		if (!connect_lane(&lanes[count]))
			return;
	}
	say("connected");
}

static void
cmd_receive(struct lane *lane, size_t size)
{
	struct iovec vector = { lane->in, size };
	struct fi_msg message = { .msg_iov = &vector, .iov_count = 1, .context = lane };
	if (works("fi_recvmsg", fi_recvmsg(lane->endpoint, &message, FI_COMPLETION)))
		say("posted");
}

static void
cmd_send(struct lane *lane, const char *hex)
{
	struct iovec vector = { lane->out, from_hex(hex, lane->out) };
	struct fi_msg message = { .msg_iov = &vector, .iov_count = 1, .context = lane };
	if (works("fi_sendmsg", fi_sendmsg(lane->endpoint, &message, 0)))
		say("sent");
}

/* The next completion: 1, 0 in time, or an error that was answered with. */
static int
completion(struct lane *lane, struct fi_cq_msg_entry *entry, int milliseconds)
{
	ssize_t n = fi_cq_sread(lane->queue, entry, 1, NULL, milliseconds);
	if (n == -FI_EAGAIN)
		return 0;
	if (n == -FI_EAVAIL) {
		struct fi_cq_err_entry error = { 0 };
		fi_cq_readerr(lane->queue, &error, 0);
		printf("error %d\n", error.err);
		fflush(stdout);
		return -1;
	}
	return works("fi_cq_sread", n) ? (int)n : -1;
}

static void
cmd_write(struct lane *lane, uint64_t address, uint64_t key, const char *hex)
{
	struct iovec vector = { lane->out, from_hex(hex, lane->out) };
	struct fi_rma_iov remote = { address, vector.iov_len, key };
	struct fi_msg_rma message = { .msg_iov = &vector, .iov_count = 1, .rma_iov = &remote,
		.rma_iov_count = 1, .context = lane };
	struct fi_cq_msg_entry entry;
	if (!works("fi_writemsg", fi_writemsg(lane->endpoint, &message, FI_COMPLETION)))
		return;
	int n = completion(lane, &entry, CONNECT_TIMEOUT);
	if (n >= 0)
		say(n ? "written" : "timeout");
}

static void
cmd_await(struct lane *lane, int milliseconds)
{
	struct fi_cq_msg_entry entry;
	int n = completion(lane, &entry, milliseconds);
	if (n < 0)
		return;
	if (n == 0) {
		say("timeout");
		return;
	}
	fputs("received ", stdout);
	for (size_t i = 0; i < entry.len; i++)
		printf("%02x", lane->in[i]);
	say("");
}

static void
cmd_event(int milliseconds)
{
	struct fi_eq_cm_entry entry;
	uint32_t event = 0;
	ssize_t n = fi_eq_sread(events, &event, &entry, sizeof(entry), milliseconds, 0);
	if (n == -FI_EAGAIN) {
		say("timeout");
		return;
	}
	if (!works("fi_eq_sread", n))
		return;
	unsigned lane = 0;
	while (lane < count && &lanes[lane].endpoint->fid != entry.fid)
		lane++;
	printf("%s %u\n", event == FI_SHUTDOWN ? "shutdown" : "event", lane);
	fflush(stdout);
}

int
main(void)
{
	char *line = NULL;
	size_t room = 0;
	while (getline(&line, &room, stdin) > 0) {
		char *word[6] = { NULL };
		char *rest = line;
		int n = 0;
		for (char *w; n < 6 && (w = strtok_r(rest, " \n", &rest)); )
			word[n++] = w;
		struct lane *lane = &lanes[n > 1 ? strtoul(word[1], NULL, 0) % MAX_LANES : 0];
		if (n == 5 && strcmp(word[0], "connect") == 0)
			cmd_connect(word);
		else if (n == 3 && strcmp(word[0], "receive") == 0)
			cmd_receive(lane, strtoul(word[2], NULL, 0));
		else if (n == 3 && strcmp(word[0], "send") == 0)
			cmd_send(lane, word[2]);
		else if (n == 5 && strcmp(word[0], "write") == 0)
			cmd_write(lane, strtoull(word[2], NULL, 0), strtoull(word[3], NULL, 0),
					word[4]);
		else if (n == 3 && strcmp(word[0], "await") == 0)
			cmd_await(lane, atoi(word[2]));
		else if (n == 2 && strcmp(word[0], "event") == 0)
			cmd_event(atoi(word[1]));
		else
			say("failed command 0");
	}
	free(line);
	return 0;
}
