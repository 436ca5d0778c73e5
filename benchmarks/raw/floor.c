/* The floor of a lane: SIZE bytes one way, 16 back, over a socket; no fabric, no pool.
 *
 *   floor [--over tcp|pair] [--tls socket|memory] [--receivers N] [--sender WAY] [--receiver WAY]
 *         [--pin CORE,CORE,...]
 *
 * WAY is one of spin, pause (gives the core away at every 32nd empty poll), yield (at every one),
 * block, or one of the first three with microseconds after which it sleeps: yield50. The cores are
 * those of the sender and of each receiver. Takes the same job lines as drive.c; its exchanges:
 *
 *   send      SIZE bytes to each receiver, then 16 back from each
 *   pipeline  the same, but the answer is waited for DEPTH messages later
 *
 * What is answered says how much processor time both sides took, too.
 */
#include "floor.h"

#include <arpa/inet.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>

enum { MOST = 8 };

static struct {
	int tcp, receivers, cores[MOST + 1], pinned;
	enum cipher cipher;
	struct waiting sender, receiver;
} options = {.tcp = 1, .receivers = 1};

static struct link links[MOST];
static clockid_t clocks[MOST + 1];
static volatile uint64_t *size_now; /* of the messages of this job; shared with the receivers */

static void *memory(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	if (p == MAP_FAILED)
		die("mmap: %s", strerror(errno));
	return p;
}

static void pin(int side)
{
	cpu_set_t set;

	if (side >= options.pinned)
		return;
	CPU_ZERO(&set);
	CPU_SET(options.cores[side], &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		die("core %d: %s", options.cores[side], strerror(errno));
}

static void no_delay(int fd)
{
	int on = 1;

	if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)))
		die("TCP_NODELAY: %s", strerror(errno));
}

static void join_sockets(int ends[2])
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
	socklen_t length = sizeof(a);
	int listener;

	if (!options.tcp) {
		if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends))
			die("socketpair: %s", strerror(errno));
		return;
	}
	listener = socket(AF_INET, SOCK_STREAM, 0);
	ends[0] = socket(AF_INET, SOCK_STREAM, 0);
	if (bind(listener, (void *)&a, sizeof(a)) || listen(listener, 1) ||
	    getsockname(listener, (void *)&a, &length) || connect(ends[0], (void *)&a, sizeof(a)) ||
	    (ends[1] = accept(listener, NULL, NULL)) < 0)
		die("connect: %s", strerror(errno));
	close(listener);
	no_delay(ends[0]);
	no_delay(ends[1]);
}

/* Each message is taken as it comes, to where the last one was; the answers are all the same. */
static void receive(int fd)
{
	static const uint8_t answer[ANSWER] = {0x81};
	uint8_t *target = memory(LARGEST);
	struct link link;
	size_t got = 0, n;

	link_open(&link, fd, options.cipher, &options.receiver, 1);
	while ((n = link_get(&link, target + got, LARGEST - got))) {
		got += n;
		/* Once the last answer has left, the next job may begin. */
		for (uint64_t size; got >= (size = *size_now);) {
			got -= size;
			link_put(&link, answer, ANSWER);
		}
	}
	_exit(0);
}

static void start_receivers(void)
{
	for (int i = 0; i < options.receivers; i++) {
		int ends[2];
		pid_t pid;

		join_sockets(ends);
		pid = fork();
		if (pid < 0)
			die("fork: %s", strerror(errno));
		if (pid == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			close(ends[0]);
			for (int k = 0; k < i; k++)
				close(links[k].fd);
			pin(i + 1);
			receive(ends[1]);
		}
		close(ends[1]);
		links[i].fd = ends[0];
		if (clock_getcpuclockid(pid, &clocks[i + 1]))
			die("no clock of a process");
	}
	clocks[0] = CLOCK_PROCESS_CPUTIME_ID;
	pin(0);
	for (int i = 0; i < options.receivers; i++)
		link_open(&links[i], links[i].fd, options.cipher, &options.sender, 0);
}

static uint64_t processor_ns(void)
{
	uint64_t sum = 0;

	for (int i = 0; i <= options.receivers; i++) {
		struct timespec t;

		clock_gettime(clocks[i], &t);
		sum += (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
	}
	return sum;
}

static void take_answers(void)
{
	uint8_t answer[ANSWER];

	for (int i = 0; i < options.receivers; i++)
		for (size_t got = 0, n; got < ANSWER; got += n)
			if (!(n = link_get(&links[i], answer + got, ANSWER - got)))
				die("a receiver is gone");
}

/* Sends COUNT messages, with DEPTH of them under way; writes when the answers came. */
static void exchange(const uint8_t *source, uint64_t size, uint64_t count, uint64_t depth, uint64_t *samples)
{
	uint64_t answered = 0, start = now_ns();

	for (uint64_t sent = 0; answered < count;) {
		if (sent < count) {
			for (int i = 0; i < options.receivers; i++)
				link_put(&links[i], source, size);
			sent++;
		}
		if (sent - answered < depth && sent < count)
			continue;
		take_answers();
		uint64_t now = now_ns();

		samples[answered++] = now - start;
		start = now;
	}
}

static void take_jobs(void)
{
	const uint8_t *source = memory(LARGEST);
	char line[256], op[32], size_text[24];
	unsigned long long count, warmup, threads, depth;

	printf("{\"connected\":%d,\"clock_ns\":%llu}\n", options.receivers, (unsigned long long)clock_cost());
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin)) {
		if (sscanf(line, "%31s %23s %llu %llu %llu %llu", op, size_text, &count, &warmup, &threads, &depth) != 6)
			die("not a job: %s", line);
		uint64_t size = parse_size(size_text), most = count > warmup ? count : warmup;
		uint64_t *samples = calloc(most + 1, sizeof(*samples)), wall, cpu;

		if (!size || size > LARGEST)
			die("not a size: %s", size_text);
		depth = strcmp(op, "pipeline") ? 1 : depth;
		*size_now = size;
		exchange(source, size, warmup, depth, samples);
		wall = now_ns();
		cpu = processor_ns();
		exchange(source, size, count, depth, samples);
		wall = now_ns() - wall;
		put_samples_of(op, size, wall, processor_ns() - cpu, size * count, samples, count);
		free(samples);
	}
}

static void parse_cores(char *text)
{
	for (char *word = strtok(text, ","); word; word = strtok(NULL, ",")) {
		if (options.pinned > MOST)
			die("too many cores");
		options.cores[options.pinned++] = atoi(word);
	}
}

int main(int argc, char **argv)
{
	static const struct option known[] = {
		{"over", 1, NULL, 'o'},	    {"tls", 1, NULL, 't'},  {"receivers", 1, NULL, 'n'},
		{"receiver", 1, NULL, 'r'}, {"sender", 1, NULL, 's'}, {"pin", 1, NULL, 'p'}, {0},
	};
	int c;

	parse_waiting(&options.sender, "pause");
	options.receiver = options.sender;
	while ((c = getopt_long(argc, argv, "", known, NULL)) != -1)
		switch (c) {
		case 'o': options.tcp = !strcmp(optarg, "tcp"); break;
		case 't': options.cipher = strcmp(optarg, "memory") ? ON_SOCKET : IN_MEMORY; break;
		case 'n': options.receivers = atoi(optarg); break;
		case 'r': parse_waiting(&options.receiver, optarg); break;
		case 's': parse_waiting(&options.sender, optarg); break;
		case 'p': parse_cores(optarg); break;
		default: die("see the top of floor.c");
		}
	if (options.receivers < 1 || options.receivers > MOST)
		die("1 to %d receivers", MOST);
	size_now = memory(sizeof(*size_now));
	*size_now = UINT64_MAX;
	start_receivers();
	take_jobs();
	return 0;
}
