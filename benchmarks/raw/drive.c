/* The raw initiator: reads "EXCHANGE SIZE COUNT WARMUP THREADS DEPTH CHUNK SPAN" lines
 * from stdin, answers each with its samples. */
#include "fabric.h"

#include <pthread.h>
#include <unistd.h>

struct job {
	char exchange[32];
	uint64_t size, count, warmup, depth, chunk, span;
	int threads;
	void (*once)(struct lane *lane, const struct job *job, uint64_t offset);
};

struct worker {
	struct lane *lane;
	const struct job *job;
	uint64_t *samples;
	pthread_t thread;
};

static struct fabric fabric;
static pthread_barrier_t barrier;
static uint64_t began;

static void await(struct lane *lane, struct fid_cq *cq, long count)
{
	struct fi_cq_msg_entry entries[RECV_DEPTH];
	uint64_t empty = 0;

	while (count > 0) {
		long n = cq_take(cq, entries, fabric.o.batch, fabric.o.wait);

		if (n == 0)
			poll_pause(&empty);

		for (long k = 0; k < n; k++) {
			uint8_t *buffer = entries[k].op_context;

			if (entries[k].flags & FI_RECV)
				fabric_post_recv(lane, (int)((size_t)(buffer - lane->recv_buffers) / lane->recv_size));
		}
		count -= n;
	}
}

#define POST(call) \
	do { \
		long rc_; \
		while ((rc_ = (call)) == -FI_EAGAIN) \
			fi_cq_read(lane->tx_cq, NULL, 0); \
		check(rc_, #call); \
	} while (0)

static void post_write(struct lane *lane, uint64_t offset, uint64_t size, uint64_t flags)
{
	struct iovec iov = {fabric.pool + offset, size};
	void *desc = fi_mr_desc(lane_mr(lane, 0));
	struct fi_rma_iov remote = {lane->grant.address + offset, size, lane->grant.key};
	struct fi_msg_rma msg = {.msg_iov = &iov, .desc = &desc, .iov_count = 1,
				 .rma_iov = &remote, .rma_iov_count = 1};

	POST(fi_writemsg(lane->ep, &msg, flags));
}

static void post_read(struct lane *lane, uint64_t offset, uint64_t size)
{
	struct iovec iov = {fabric.pool + offset, size};
	void *desc = fi_mr_desc(lane_mr(lane, 0));
	struct fi_rma_iov remote = {lane->grant.address + offset, size, lane->grant.key};
	struct fi_msg_rma msg = {.msg_iov = &iov, .desc = &desc, .iov_count = 1,
				 .rma_iov = &remote, .rma_iov_count = 1};

	POST(fi_readmsg(lane->ep, &msg, FI_COMPLETION));
}

static void post_send(struct lane *lane, uint32_t mode, uint32_t flags, uint64_t offset,
		      uint64_t size, const void *data, uint64_t data_size)
{
	struct request r = {mode, flags, offset, size};
	struct iovec iov[2] = {{lane->send_buffer, HEADER}, {(void *)data, data_size}};
	void *desc[2] = {fi_mr_desc(lane_mr(lane, 1)), fi_mr_desc(lane_mr(lane, 0))};
	struct fi_msg msg = {.msg_iov = iov, .desc = desc, .iov_count = data_size ? 2 : 1};

	memcpy(lane->send_buffer, &r, HEADER);
	POST(fi_sendmsg(lane->ep, &msg, 0));
}

/* --- the exchanges ------------------------------------------------------------------- */

static void write_delivery(struct lane *lane, const struct job *job, uint64_t offset)
{
	post_write(lane, offset, job->size, FI_COMPLETION | FI_DELIVERY_COMPLETE);
	await(lane, lane->tx_cq, 1);
}

static void write_commit(struct lane *lane, const struct job *job, uint64_t offset)
{
	post_write(lane, offset, job->size, FI_COMPLETION | FI_COMMIT_COMPLETE);
	await(lane, lane->tx_cq, 1);
}

static void write_read(struct lane *lane, const struct job *job, uint64_t offset)
{
	post_write(lane, offset, job->size, 0);
	post_read(lane, offset, 8);
	await(lane, lane->tx_cq, 1);
}

static void write_send(struct lane *lane, const struct job *job, uint64_t offset)
{
	post_write(lane, offset, job->size, 0);
	post_send(lane, MODE_FLUSH, WANTS_REPLY, offset, job->size, NULL, 0);
	await(lane, lane->cq, 1);
}

/* the data travels behind the header: two pieces, no copy */
static void send_inline(struct lane *lane, const struct job *job, uint64_t offset)
{
	post_send(lane, MODE_INLINE, WANTS_REPLY, offset, job->size, fabric.pool + offset, job->size);
	await(lane, lane->cq, 1);
}

/* the same, copied into one buffer behind the header first */
static void send_copied(struct lane *lane, const struct job *job, uint64_t offset)
{
	struct request r = {MODE_INLINE, WANTS_REPLY, offset, job->size};
	void *desc = fi_mr_desc(lane_mr(lane, 1));

	memcpy(lane->send_buffer, &r, HEADER);
	memcpy(lane->send_buffer + HEADER, fabric.pool + offset, job->size);
	if (HEADER + job->size <= fabric.info->tx_attr->inject_size) {
		POST(fi_inject(lane->ep, lane->send_buffer, HEADER + job->size, 0));
	} else {
		struct iovec iov = {lane->send_buffer, HEADER + job->size};
		struct fi_msg msg = {.msg_iov = &iov, .desc = &desc, .iov_count = 1};

		POST(fi_sendmsg(lane->ep, &msg, 0));
	}
	await(lane, lane->cq, 1);
}

/* SENDs of CHUNK bytes one after another, a reply to the last one only */
static void send_piped(struct lane *lane, const struct job *job, uint64_t offset)
{
	uint64_t done = 0, slot = 0;

	while (done < job->size) {
		uint64_t n = job->size - done < job->chunk ? job->size - done : job->chunk;
		int last = done + n == job->size;
		/* a separate header for every chunk in flight */
		uint8_t *header = lane->send_buffer + (slot++ % (fabric.send_size / HEADER)) * HEADER;
		struct request r = {MODE_INLINE, last ? WANTS_REPLY : 0, offset + done, n};
		struct iovec iov[2] = {{header, HEADER}, {fabric.pool + offset + done, n}};
		void *desc[2] = {fi_mr_desc(lane_mr(lane, 1)), fi_mr_desc(lane_mr(lane, 0))};
		struct fi_msg msg = {.msg_iov = iov, .desc = desc, .iov_count = 2};

		memcpy(header, &r, HEADER);
		POST(fi_sendmsg(lane->ep, &msg, 0));
		done += n;
	}
	await(lane, lane->cq, 1);
}

/* WRITEs of CHUNK bytes, a completion for the last: WRITEs of one connection keep their order */
static void post_pieces(struct lane *lane, const struct job *job, uint64_t offset)
{
	uint64_t done = 0;

	while (done < job->size) {
		uint64_t n = job->size - done < job->chunk ? job->size - done : job->chunk;

		done += n;
		post_write(lane, offset + done - n, n,
			   done == job->size ? FI_COMPLETION | FI_DELIVERY_COMPLETE : 0);
	}
}

static void write_chunks(struct lane *lane, const struct job *job, uint64_t offset)
{
	post_pieces(lane, job, offset);
	await(lane, lane->tx_cq, 1);
}

/* DEPTH WRITEs of SIZE bytes at neighbouring places, then one SEND and its reply */
static void batch_flush(struct lane *lane, const struct job *job, uint64_t offset)
{
	for (uint64_t i = 0; i < job->depth; i++)
		post_write(lane, (offset + i * job->size) % (fabric.pool_size - job->size), job->size, 0);
	post_send(lane, MODE_FLUSH, WANTS_REPLY, offset, job->size, NULL, 0);
	await(lane, lane->cq, 1);
}

static void read_remote(struct lane *lane, const struct job *job, uint64_t offset)
{
	post_read(lane, offset, job->size);
	await(lane, lane->tx_cq, 1);
}

static void echo(struct lane *lane, const struct job *job, uint64_t offset)
{
	(void)job;
	post_send(lane, MODE_ECHO, WANTS_REPLY, offset, 0, NULL, 0);
	await(lane, lane->cq, 1);
}

static const struct {
	const char *name;
	void (*once)(struct lane *, const struct job *, uint64_t);
} exchanges[] = {
	{"write-delivery", write_delivery}, {"write-commit", write_commit}, {"write-read", write_read},
	{"write-send", write_send},	    {"inline", send_inline},	    {"inline-copied", send_copied},
	{"inline-piped", send_piped},	    {"write-chunks", write_chunks}, {"batch-flush", batch_flush},
	{"read", read_remote},		    {"echo", echo},
};

/* --- running a job ------------------------------------------------------------------- */

/* DEPTH writes outstanding; a sample is the time between two completions */
static void stream(struct lane *lane, const struct job *job, uint64_t *samples)
{
	uint64_t posted = 0, done = 0, last = now_ns(), slots = job->span / job->size;
	struct fi_cq_msg_entry entries[RECV_DEPTH];

	if (!slots)
		slots = 1;
	while (done < job->count) {
		while (posted < job->count && posted - done < job->depth) {
			post_pieces(lane, job, posted % slots * job->size);
			posted++;
		}
		long n = cq_take(lane->tx_cq, entries, fabric.o.batch, fabric.o.wait);

		for (long k = 0; k < n; k++) {
			uint64_t now = now_ns();

			samples[done++] = now - last;
			last = now;
		}
	}
}

static void *work(void *argument)
{
	struct worker *w = argument;
	const struct job *job = w->job;
	uint64_t stride = job->size < 64 ? 64 : job->size, slots = job->span / stride;
	uint64_t home = (uint64_t)(w->lane - fabric.lanes) * job->span;

	if (!slots)
		slots = 1;
	if (pthread_barrier_wait(&barrier) == PTHREAD_BARRIER_SERIAL_THREAD)
		began = now_ns();
	if (!job->once) {
		stream(w->lane, job, w->samples);
		return NULL;
	}
	for (uint64_t i = 0; i < job->warmup; i++)
		job->once(w->lane, job, home + i % slots * stride);
	if (pthread_barrier_wait(&barrier) == PTHREAD_BARRIER_SERIAL_THREAD)
		began = now_ns();
	for (uint64_t i = 0; i < job->count; i++) {
		uint64_t start = now_ns();

		job->once(w->lane, job, home + i % slots * stride);
		w->samples[i] = now_ns() - start;
	}
	return NULL;
}

static void run(const struct job *job)
{
	struct worker workers[MAX_LANES];
	size_t total = job->count * (size_t)job->threads;
	uint64_t *samples = calloc(total + 1, sizeof(*samples));

	pthread_barrier_init(&barrier, NULL, (unsigned)job->threads);
	for (int t = 0; t < job->threads; t++) {
		workers[t] = (struct worker){.lane = &fabric.lanes[t], .job = job, .samples = samples + (size_t)t * job->count};
		if (t)
			pthread_create(&workers[t].thread, NULL, work, &workers[t]);
	}
	work(&workers[0]);
	for (int t = 1; t < job->threads; t++)
		pthread_join(workers[t].thread, NULL);
	put_samples(job->exchange, job->size, now_ns() - began, job->size * total, samples, total);
	pthread_barrier_destroy(&barrier);
	free(samples);
}

int main(int argc, char **argv)
{
	char line[256], size[24], chunk[24], span[24];

	parse_options(&fabric.o, argc, argv);
	fabric_open(&fabric, 0);
	fabric_connect(&fabric);
	memset(fabric.pool, 0x5a, fabric.pool_size);
	printf("{\"connected\":%d,\"inject\":%zu,\"clock_ns\":%llu}\n", fabric.o.lanes,
	       fabric.info->tx_attr->inject_size, (unsigned long long)clock_cost());
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin)) {
		struct job job = {0};
		unsigned long long count, warmup, depth;

		if (sscanf(line, "%31s %23s %llu %llu %d %llu %23s %23s", job.exchange, size, &count,
			   &warmup, &job.threads, &depth, chunk, span) != 8)
			die("not a job: %s", line);
		job.size = parse_size(size);
		job.chunk = parse_size(chunk);
		job.span = parse_size(span);
		job.count = count;
		job.warmup = warmup;
		job.depth = depth;
		for (size_t i = 0; i < sizeof(exchanges) / sizeof(*exchanges); i++)
			if (!strcmp(job.exchange, exchanges[i].name))
				job.once = exchanges[i].once;
		if (!job.once && strcmp(job.exchange, "stream"))
			die("no such exchange: %s", job.exchange);
		if (job.threads < 1 || job.threads > fabric.o.lanes || !job.chunk ||
		    job.span * (uint64_t)job.threads > fabric.pool_size || job.size > job.span)
			die("job does not fit: %s", line);
		run(&job);
	}
	fabric_close(&fabric);
	return 0;
}
