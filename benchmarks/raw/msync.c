/* No replication at all: store to a mapped file and msync it. Job lines as drive.c. */
#include "common.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	char line[256], exchange[32], size_text[24], rest[128];
	unsigned long long count, warmup;
	uint64_t pool;
	uint8_t *map;
	int fd;

	if (argc != 3)
		die("usage: msync FILE SIZE");
	pool = parse_size(argv[2]);
	fd = open(argv[1], O_RDWR | O_CREAT, 0600);
	if (fd < 0 || posix_fallocate(fd, 0, (off_t)pool))
		die("%s: %s", argv[1], strerror(errno));
	map = mmap(NULL, pool, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		die("mmap: %s", strerror(errno));
	memset(map, 1, pool);
	msync(map, pool, MS_SYNC);
	printf("{\"connected\":0,\"clock_ns\":%llu}\n", (unsigned long long)clock_cost());
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin)) {
		if (sscanf(line, "%31s %23s %llu %llu %127[^\n]", exchange, size_text, &count, &warmup, rest) < 4)
			die("not a job: %s", line);
		uint64_t size = parse_size(size_text), *samples = calloc(count + 1, sizeof(*samples)), wall = 0;

		if (size > pool)
			die("too large");
		for (uint64_t i = 0; i < warmup + count; i++) {
			uint64_t start = now_ns();

			if (i == warmup)
				wall = start;
			memset(map, (int)i, size);
			if (msync(map, (size + 4095) & ~4095ul, MS_SYNC))
				die("msync: %s", strerror(errno));
			if (i >= warmup)
				samples[i - warmup] = now_ns() - start;
		}
		put_samples(exchange, size, now_ns() - wall, size * count, samples, count);
		free(samples);
	}
	return 0;
}
