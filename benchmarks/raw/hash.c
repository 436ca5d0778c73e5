/* Hashes the pages of a file in a given time, piece by piece, again and again until it is killed:
 * hash FILE SECONDS. What verifying must cost at least, on one side. */
#include "common.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#define PAGE 4096ul
#define PIECE (16ul << 20)

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void sleep_for(double seconds)
{
	struct timespec t = { (time_t)seconds, (long)(1e9 * (seconds - (double)(time_t)seconds)) };

	nanosleep(&t, NULL);
}

int main(int argc, char **argv)
{
	int fd = argc == 3 ? open(argv[1], O_RDONLY | O_CLOEXEC) : -1;
	double seconds = argc == 3 ? atof(argv[2]) : 0;
	volatile uint64_t sum = 0;
	struct stat about;
	const uint8_t *data;
	size_t at, k;

	if (fd < 0 || fstat(fd, &about))
		return 1;
	data = mmap(NULL, (size_t)about.st_size, PROT_READ, MAP_SHARED | MAP_POPULATE, fd, 0);
	if (data == MAP_FAILED)
		return 1;
	puts("ready");
	fflush(stdout);
	for (;;) {
		double begun = now();

		for (at = 0; at < (size_t)about.st_size; at += PIECE) {
			double due;

			for (k = at; k < at + PIECE && k + PAGE <= (size_t)about.st_size; k += PAGE)
				sum += XXH3_128bits(data + k, PAGE).low64;
			due = begun + seconds * (double)(at + PIECE) / (double)about.st_size - now();
			if (due > 0)
				sleep_for(due);
		}
	}
}
