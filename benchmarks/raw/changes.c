/* The least that finding changed pages costs, as a library for ctypes: one scan by the kernel, and
 * one digest for every page. Errors are negative errno values. */
#include "common.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#define PAGE 4096ul
#define PIECE 1024ul /* pages */
#define MAX_THREADS 64

/* linux/fs.h and linux/userfaultfd.h from Linux 6.7 on; the headers may be older than the kernel */
struct scanned { uint64_t start, end, categories; };
struct scan {
	uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
	uint64_t inverted, mask, anyof, returned;
};
#define SCAN _IOWR('f', 16, struct scan)
#define SCAN_PROTECT_AND_CHECK 3ul
#define WRITTEN 2ul
#define ASYNC_AND_UNPOPULATED (1ul << 15 | 1ul << 13)

struct range { uint64_t offset, length; };

static int pagemap = -1;

/* Write-protect a mapping; closing what is returned ends it. */
int changes_watch(uint8_t *address, uint64_t length)
{
	struct uffdio_api api = { .api = UFFD_API, .features = ASYNC_AND_UNPOPULATED };
	struct uffdio_register all = {
		.range = { (uintptr_t)address, length }, .mode = UFFDIO_REGISTER_MODE_WP,
	};
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);

	if (pagemap < 0)
		pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	if (fd < 0 || pagemap < 0)
		return -errno;
	if (ioctl(fd, UFFDIO_API, &api) || ioctl(fd, UFFDIO_REGISTER, &all)) {
		int why = errno;

		close(fd);
		return -why;
	}
	return fd;
}

/* Let no page be mapped with its neighbours, which would then count as written with it. */
int changes_split(uint8_t *address, uint64_t length)
{
	return madvise(address, length, MADV_NOHUGEPAGE) || madvise(address, length, MADV_DONTNEED)
		       ? -errno
		       : 0;
}

/* Protect what was written since the last call; `ranges` begin at `base` where `address` does. */
int64_t changes_take(uint8_t *address, uint64_t length, uint64_t base, struct range *ranges,
		     struct scanned *regions, uint64_t room)
{
	struct scan scan = {
		.size = sizeof(scan), .flags = SCAN_PROTECT_AND_CHECK,
		.start = (uintptr_t)address, .end = (uintptr_t)address + length,
		.vec = (uintptr_t)regions, .vec_len = room, .mask = WRITTEN, .returned = WRITTEN,
	};
	int64_t found = ioctl(pagemap, SCAN, &scan);

	if (found < 0)
		return -errno;
	/* Beyond 512 ranges, walk_end is not always where the walk ended. */
	if (found == (int64_t)room)
		return -ENOSPC;
	for (int64_t i = 0; i < found; i++) {
		ranges[i].offset = regions[i].start - (uintptr_t)address + base;
		ranges[i].length = regions[i].end - regions[i].start;
	}
	return found;
}

struct hashing {
	const uint8_t *from;
	XXH128_hash_t *digests;
	uint64_t pages, next;
	int64_t differing;
};

/* Piece after piece, so that a thread that has to wait for a processor keeps nobody waiting. Every
 * page's digest is compared with the one before, and kept. */
static void *hash(void *argument)
{
	struct hashing *all = argument;
	uint64_t page;

	while ((page = __atomic_fetch_add(&all->next, PIECE, __ATOMIC_RELAXED)) < all->pages) {
		uint64_t end = page + PIECE < all->pages ? page + PIECE : all->pages;
		int64_t differing = 0;

		for (; page < end; page++) {
			XXH128_hash_t digest = XXH3_128bits(all->from + page * PAGE, PAGE);

			if (!XXH128_isEqual(digest, all->digests[page])) {
				all->digests[page] = digest;
				differing++;
			}
		}
		__atomic_fetch_add(&all->differing, differing, __ATOMIC_RELAXED);
	}
	return NULL;
}

/* The number of pages whose digest is not that in `digests`, which then has the new ones. */
int64_t changes_digests(const uint8_t *address, uint64_t pages, XXH128_hash_t *digests,
			unsigned threads)
{
	struct hashing all = { address, digests, pages, 0, 0 };
	pthread_t running[MAX_THREADS];

	if (threads < 1 || threads > MAX_THREADS)
		return -EINVAL;
	for (unsigned t = 1; t < threads; t++)
		if (pthread_create(&running[t], NULL, hash, &all))
			die("changes: no thread");
	hash(&all);
	for (unsigned t = 1; t < threads; t++)
		pthread_join(running[t], NULL);
	return all.differing;
}
