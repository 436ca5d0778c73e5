/* Opening, listening, connecting; nothing here is on the measured path. */
#include "fabric.h"

#include <fcntl.h>
#include <getopt.h>
#include <sys/mman.h>
#include <unistd.h>
#include <netinet/in.h>

void check(long rc, const char *what)
{
	if (rc)
		die("%s: %s", what, fi_strerror((int)(rc < 0 ? -rc : rc)));
}

void cq_fail(struct fid_cq *cq, long rc)
{
	struct fi_cq_err_entry e = {0};
	char text[128];

	if (rc != -FI_EAVAIL)
		die("fi_cq_read: %s", fi_strerror((int)-rc));
	fi_cq_readerr(cq, &e, 0);
	die("operation failed: %s (%s)", fi_strerror(e.err),
	    fi_cq_strerror(cq, e.prov_errno, e.err_data, text, sizeof(text)));
}

void parse_options(struct options *o, int argc, char **argv)
{
	static const struct option names[] = {
		{"provider", 1, 0, 'p'}, {"host", 1, 0, 'h'},	  {"port", 1, 0, 'P'},
		{"file", 1, 0, 'f'},	 {"persist", 1, 0, 's'},  {"pool", 1, 0, 'z'},
		{"inline", 1, 0, 'i'},	 {"lanes", 1, 0, 'l'},	  {"wait", 0, 0, 'w'},
		{"cq-wait", 0, 0, 'c'},	 {"split-cq", 0, 0, 'x'}, {"domain-per-lane", 0, 0, 'd'},
		{"threads", 1, 0, 't'},	 {"batch", 1, 0, 'b'},	  {"reply-send", 0, 0, 'r'},
		{"spin-us", 1, 0, 'u'},	 {"recv-depth", 1, 0, 'R'}, {0, 0, 0, 0}};
	int c;

	*o = (struct options){.provider = "tcp", .host = "127.0.0.1", .persist = "none",
			      .pool = 64 << 20, .inline_limit = 64 << 10, .lanes = 1, .threads = 1,
			      .batch = 8, .recv_depth = RECV_DEPTH, .reply_inject = 1, .spin_us = 20000};
	while ((c = getopt_long(argc, argv, "", names, NULL)) != -1) {
		switch (c) {
		case 'p': o->provider = optarg; break;
		case 'h': o->host = optarg; break;
		case 'P': o->port = optarg; break;
		case 'f': o->file = optarg; break;
		case 's': o->persist = optarg; break;
		case 'z': o->pool = parse_size(optarg); break;
		case 'i': o->inline_limit = parse_size(optarg); break;
		case 'l': o->lanes = atoi(optarg); break;
		case 'w': o->wait = o->cq_wait = 1; break;
		case 'c': o->cq_wait = 1; break;
		case 'x': o->split_cq = 1; break;
		case 'd': o->domain_per_lane = 1; break;
		case 't': o->threads = atoi(optarg); break;
		case 'b': o->batch = atoi(optarg); break;
		case 'r': o->reply_inject = 0; break;
		case 'u': o->spin_us = strtoull(optarg, NULL, 0); break;
		case 'R': o->recv_depth = atoi(optarg); break;
		default: exit(2);
		}
	}
	if (o->lanes < 1 || o->lanes > MAX_LANES || o->batch < 1 || o->batch > RECV_DEPTH ||
	    o->recv_depth < 1 || o->recv_depth > RECV_DEPTH)
		die("lanes must be 1..%d, batch and recv-depth 1..%d", MAX_LANES, RECV_DEPTH);
}

static void *map_pool(const char *path, size_t size)
{
	int flags = path ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS, fd = -1;
	void *p;

	if (path) {
		fd = open(path, O_RDWR | O_CREAT, 0600);
		if (fd < 0 || posix_fallocate(fd, 0, (off_t)size))
			die("%s: %s", path, strerror(errno));
	}
	p = mmap(NULL, size, PROT_READ | PROT_WRITE, flags | MAP_POPULATE, fd, 0);
	if (p == MAP_FAILED)
		die("mmap: %s", strerror(errno));
	if (fd >= 0)
		close(fd);
	return p;
}

static struct fid_mr *reg(struct fabric *f, struct fid_domain *domain, void *p, size_t size,
			  uint64_t access, uint64_t key, uint64_t flags)
{
	struct fid_mr *mr;

	check(fi_mr_reg(domain, p, size, access, 0, key, flags, &mr, NULL), "fi_mr_reg");
	(void)f;
	return mr;
}

void fabric_open(struct fabric *f, int server)
{
	struct fi_info *hints = fi_allocinfo();
	struct fi_eq_attr eq = {.wait_obj = FI_WAIT_UNSPEC};
	uint64_t flags = server ? FI_SOURCE : 0;

	hints->ep_attr->type = FI_EP_MSG;
	hints->caps = FI_MSG | FI_RMA;
	hints->mode = FI_CONTEXT | FI_LOCAL_MR | FI_RX_CQ_DATA;
	hints->addr_format = FI_SOCKADDR;
	hints->domain_attr->mr_mode = FI_MR_LOCAL | FI_MR_VIRT_ADDR | FI_MR_ALLOCATED | FI_MR_PROV_KEY;
	hints->domain_attr->threading =
		f->o.domain_per_lane || f->o.lanes == 1 ? FI_THREAD_DOMAIN : FI_THREAD_SAFE;
	hints->tx_attr->msg_order = FI_ORDER_RAW | FI_ORDER_SAW | FI_ORDER_WAW;
	hints->fabric_attr->prov_name = strdup(f->o.provider);
	check(fi_getinfo(FI_VERSION(1, 11), f->o.host, f->o.port, flags, hints, &f->info), "fi_getinfo");
	fi_freeinfo(hints);
	check(fi_fabric(f->info->fabric_attr, &f->fabric, NULL), "fi_fabric");
	check(fi_eq_open(f->fabric, &eq, &f->eq, NULL), "fi_eq_open");

	f->o.bell = server && !f->o.wait && !f->o.split_cq && !f->o.cq_wait;
	f->pool_size = f->o.pool;
	f->pool = map_pool(f->o.file, f->pool_size);
	f->recv_size = server ? HEADER + f->o.inline_limit : 64;
	f->recv_size = (f->recv_size + 4095) & ~4095ul;
	f->send_size = (HEADER + f->o.inline_limit + 4095) & ~4095ul;
	f->messages_size = (f->recv_size * RECV_DEPTH + f->send_size) * (size_t)f->o.lanes;
	f->messages = map_pool(NULL, f->messages_size);
}

/* one domain for all lanes, or one for each */
static struct domain *domain_for(struct fabric *f, struct fi_info *info, int lane)
{
	uint64_t access = FI_READ | FI_WRITE | FI_REMOTE_READ | FI_REMOTE_WRITE;
	struct domain *d = &f->domains[f->o.domain_per_lane ? lane : 0];

	if (d->domain)
		return d;
	check(fi_domain(f->fabric, info, &d->domain, NULL), "fi_domain");
	d->pool = reg(f, d->domain, f->pool, f->pool_size, access, 1, 0);
	d->messages = reg(f, d->domain, f->messages, f->messages_size, FI_SEND | FI_RECV, 2, 0);
	f->n_domains++;
	return d;
}

void fabric_post_recv(struct lane *lane, int slot)
{
	uint8_t *buffer = lane->recv_buffers + (size_t)slot * lane->recv_size;

	struct iovec iov = {buffer, lane->recv_size};
	void *desc = fi_mr_desc(lane_mr(lane, 1));
	struct fi_msg msg = {.msg_iov = &iov, .desc = &desc, .iov_count = 1, .context = buffer};

	/* selective completion also applies to receives: ask for it */
	check(fi_recvmsg(lane->ep, &msg, FI_COMPLETION), "fi_recvmsg");
}

static void open_lane(struct fabric *f, struct fi_info *info, int index)
{
	struct lane *lane = &f->lanes[index];
	struct fi_cq_attr attr = {.size = 1024, .format = FI_CQ_FORMAT_MSG,
				  .wait_obj = f->o.cq_wait ? FI_WAIT_FD : FI_WAIT_NONE};

	lane->domain = domain_for(f, info, index);
	lane->recv_size = f->recv_size;
	lane->recv_buffers = f->messages + (size_t)index * (f->recv_size * RECV_DEPTH + f->send_size);
	lane->send_buffer = lane->recv_buffers + f->recv_size * RECV_DEPTH;
	check(fi_endpoint(lane->domain->domain, info, &lane->ep, lane), "fi_endpoint");
	check(fi_cq_open(lane->domain->domain, &attr, &lane->cq, NULL), "fi_cq_open");
	lane->tx_cq = lane->cq;
	check(fi_ep_bind(lane->ep, &f->eq->fid, 0), "bind eq");
	if (f->o.split_cq || f->o.bell) {
		if (f->o.bell)
			attr.wait_obj = FI_WAIT_FD;
		check(fi_cq_open(lane->domain->domain, &attr, &lane->tx_cq, NULL), "fi_cq_open");
		check(fi_ep_bind(lane->ep, &lane->cq->fid, FI_RECV), "bind recv cq");
		check(fi_ep_bind(lane->ep, &lane->tx_cq->fid, FI_TRANSMIT | FI_SELECTIVE_COMPLETION), "bind tx cq");
	} else {
		check(fi_ep_bind(lane->ep, &lane->cq->fid, FI_RECV | FI_TRANSMIT | FI_SELECTIVE_COMPLETION), "bind cq");
	}
	if (f->o.bell)
		check(fi_control(&lane->tx_cq->fid, FI_GETWAIT, &lane->bell_fd), "FI_GETWAIT");
	check(fi_enable(lane->ep), "fi_enable");
	for (int slot = 0; slot < f->o.recv_depth; slot++)
		fabric_post_recv(lane, slot);
}

/* the next event of KIND; its private data goes to PAYLOAD */
static struct fid *await_event(struct fabric *f, uint32_t kind, struct fi_info **info,
			       void *payload, size_t size)
{
	uint8_t room[sizeof(struct fi_eq_cm_entry) + 256];
	struct fi_eq_cm_entry *entry = (void *)room;
	uint32_t event = 0;
	ssize_t n;

	do {
		n = fi_eq_sread(f->eq, &event, room, sizeof(room), 10000, 0);
		/* not every provider makes progress by itself: drive it */
		for (int i = 0; n == -FI_EAGAIN && i < MAX_LANES; i++)
			if (f->lanes[i].cq)
				fi_cq_read(f->lanes[i].cq, NULL, 0);
	} while (n == -FI_EAGAIN || n == -FI_EINTR);
	if (n == -FI_EAVAIL) {
		struct fi_eq_err_entry e = {0};

		fi_eq_readerr(f->eq, &e, 0);
		die("connection: %s", fi_strerror(e.err));
	}
	if (n < 0 || event != kind)
		die("connection: event %u, %zd where %u was due", event, n, kind);
	if (info)
		*info = entry->info;
	if (payload && (size_t)n >= sizeof(*entry) + size)
		memcpy(payload, entry->data, size);
	return entry->fid;
}

static int sockaddr_port(struct fid *fid)
{
	struct sockaddr_storage a;
	size_t size = sizeof(a);

	check(fi_getname(fid, &a, &size), "fi_getname");
	return ntohs(a.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&a)->sin6_port
					     : ((struct sockaddr_in *)&a)->sin_port);
}

void fabric_listen(struct fabric *f)
{
	int virt = f->info->domain_attr->mr_mode & FI_MR_VIRT_ADDR;

	check(fi_passive_ep(f->fabric, f->info, &f->pep, NULL), "fi_passive_ep");
	check(fi_pep_bind(f->pep, &f->eq->fid, 0), "fi_pep_bind");
	check(fi_listen(f->pep), "fi_listen");
	printf("{\"port\":%d,\"provider\":\"%s\",\"mr_mode\":%d}\n", sockaddr_port(&f->pep->fid),
	       f->info->fabric_attr->prov_name, f->info->domain_attr->mr_mode);
	fflush(stdout);
	for (int i = 0; i < f->o.lanes; i++) {
		struct grant grant;
		struct fi_info *info;

		await_event(f, FI_CONNREQ, &info, NULL, 0);
		open_lane(f, info, i);
		grant = (struct grant){fi_mr_key(f->lanes[i].domain->pool),
				       virt ? (uintptr_t)f->pool : 0, f->pool_size};
		check(fi_accept(f->lanes[i].ep, &grant, sizeof(grant)), "fi_accept");
		await_event(f, FI_CONNECTED, NULL, NULL, 0);
		fi_freeinfo(info);
	}
}

void fabric_connect(struct fabric *f)
{
	for (int i = 0; i < f->o.lanes; i++) {
		open_lane(f, f->info, i);
		check(fi_connect(f->lanes[i].ep, f->info->dest_addr, NULL, 0), "fi_connect");
		await_event(f, FI_CONNECTED, NULL, &f->lanes[i].grant, sizeof(struct grant));
	}
}

void fabric_close(struct fabric *f)
{
	for (int i = 0; i < f->o.lanes; i++) {
		struct lane *lane = &f->lanes[i];

		if (!lane->ep)
			continue;
		fi_shutdown(lane->ep, 0);
		fi_close(&lane->ep->fid);
		if (lane->tx_cq != lane->cq)
			fi_close(&lane->tx_cq->fid);
		fi_close(&lane->cq->fid);
	}
	for (int i = 0; i < MAX_LANES; i++) {
		if (!f->domains[i].domain)
			continue;
		fi_close(&f->domains[i].pool->fid);
		fi_close(&f->domains[i].messages->fid);
		fi_close(&f->domains[i].domain->fid);
	}
	if (f->pep)
		fi_close(&f->pep->fid);
	fi_close(&f->eq->fid);
	fi_close(&f->fabric->fid);
	fi_freeinfo(f->info);
}
