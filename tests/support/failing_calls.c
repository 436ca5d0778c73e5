/*
 * Preloaded into a program, makes the n-th call that touches files of one directory fail, and keeps
 * beside it what a medium would hold: the bytes and names that were made durable, and nothing else.
 *
 * Three variables name the place: FAILING_CALLS the page that the tests share with every process
 * (struct control below), FAILING_UNDER the directory whose files count, FAILING_MEDIUM the
 * directory of what is durable, a file for each inode (empty: none is kept).  A process whose
 * arguments name rpmemd is the target, any other one the initiator.  With FAILING_LIMIT the limit on
 * descriptors is shown as one that cannot be raised: the shim does, for its own.
 *
 * As in Linux, pages whose write-back failed are clean afterwards: the next flush succeeds without
 * them, unless they were stored to in between.
 */

#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <unistd.h>

#define PAGE 4096
#define MOST_MAPPINGS 256
#define MOST_RECORDS 8192
#define INITIATOR 1
#define TARGET 2

struct record {
	uint8_t side;
	uint8_t failed;
	uint16_t unused;
	uint32_t pid;
	char kind[24];
	char path[224];
};

struct control {
	uint32_t armed;		/* the side whose calls count, or 3 for both; 0: none */
	uint32_t fail_at;	/* the call to fail, from 1; 0: none */
	uint32_t ever_after;	/* and all after it */
	int32_t error;		/* its errno; 0: a write that writes half */
	_Atomic uint32_t count;	/* calls since it was armed */
	_Atomic uint32_t failed;
	_Atomic uint32_t records;
	uint32_t page_cache;	/* say that the files are on a disk: a tmpfs is never flushed */
	char only[24];		/* this kind of call alone counts; empty: all */
	uint32_t swallow;	/* a flush that failed is said to have succeeded: a control */
	char unused[196];
	struct record record[MOST_RECORDS];
};

struct mapping {
	char *base;
	size_t length;
	off_t offset;
	ino_t inode;
};

static struct control *control;
static int shows_limit_as_hard;
static char under[512], medium[512];
static size_t under_length;
static int side = INITIATOR;
static struct mapping mappings[MOST_MAPPINGS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static __thread int inside;	/* what the shim does itself is not looked at */

#define REAL(name) \
	static __typeof__(&name) real; \
	if (real == NULL) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

static int
is_target(void)
{
	char words[8192];
	int fd = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
	ssize_t length = fd < 0 ? 0 : read(fd, words, sizeof(words) - 1);
	if (fd >= 0)
		close(fd);
	words[length < 0 ? 0 : length] = 0;
	for (char *word = words; word < words + length; word += strlen(word) + 1) {
		char *name = strrchr(word, '/');
		if (strcmp(name ? name + 1 : word, "rpmemd") == 0)
			return 1;
	}
	return 0;
}

__attribute__((constructor)) static void
begin(void)
{
	const char *page = getenv("FAILING_CALLS"), *directory = getenv("FAILING_UNDER");
	const char *durable = getenv("FAILING_MEDIUM");
	if (page == NULL || directory == NULL || durable == NULL)
		return;
	inside = 1;
	snprintf(under, sizeof(under), "%s/", directory);
	under_length = strlen(under);
	snprintf(medium, sizeof(medium), "%s", durable);
	side = is_target() ? TARGET : INITIATOR;
	shows_limit_as_hard = getenv("FAILING_LIMIT") != NULL;
	int fd = open(page, O_RDWR | O_CLOEXEC);
	if (fd >= 0) {
		void *address = mmap(NULL, sizeof(struct control), PROT_READ | PROT_WRITE,
		    MAP_SHARED, fd, 0);
		if (address != MAP_FAILED)
			control = address;
		close(fd);
	}
	inside = 0;
}

/* --- what is counted ------------------------------------------------------------------------- */

static int
is_ours(const char *path)
{
	return strncmp(path, under, under_length) == 0 ||
	    (strlen(path) == under_length - 1 && strncmp(path, under, under_length - 1) == 0);
}

/* The path of a descriptor, when it is one that counts. */
static const char *
path_of(int fd, char path[512])
{
	char link[64];
	if (control == NULL || inside || fd < 0)
		return NULL;
	int before = errno;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	ssize_t length = readlink(link, path, 511);
	errno = before;
	if (length <= 0)
		return NULL;
	path[length] = 0;
	return is_ours(path) ? path : NULL;
}

static const char *
path_at(int directory, const char *name, char path[512])
{
	if (control == NULL || inside || name == NULL)
		return NULL;
	if (name[0] == '/') {
		snprintf(path, 512, "%s", name);
	} else if (directory == AT_FDCWD) {
		if (getcwd(path, 256) == NULL)
			return NULL;
		snprintf(path + strlen(path), 256, "/%s", name);
	} else {
		char link[64];
		snprintf(link, sizeof(link), "/proc/self/fd/%d", directory);
		ssize_t length = readlink(link, path, 255);
		if (length <= 0)
			return NULL;
		snprintf(path + length, 256, "/%s", name);
	}
	return is_ours(path) ? path : NULL;
}

/* Whether the function that called the interposed one is rpmem's or libpmem2's. */
static int
from_rpmem(void *address)
{
	Dl_info about;
	return control != NULL && !inside && dladdr(address, &about) != 0 && about.dli_fname != NULL &&
	    (strstr(about.dli_fname, "/rpmem/") != NULL || strstr(about.dli_fname, "libpmem2") != NULL);
}

/* Count a call; true, with errno set, when it is the one to fail. */
static int
fails(const char *kind, const char *path)
{
	if (path == NULL || (control->armed & side) == 0)
		return 0;
	if (control->only[0] != 0 && strcmp(control->only, kind) != 0)
		return 0;
	uint32_t number = atomic_fetch_add(&control->count, 1) + 1;
	int failed = control->fail_at != 0 && (number == control->fail_at ||
	    (control->ever_after && number > control->fail_at));
	uint32_t at = atomic_fetch_add(&control->records, 1);
	if (at < MOST_RECORDS) {
		struct record *record = &control->record[at];
		record->side = (uint8_t)side;
		record->failed = (uint8_t)failed;
		record->pid = (uint32_t)getpid();
		snprintf(record->kind, sizeof(record->kind), "%s", kind);
		snprintf(record->path, sizeof(record->path), "%s", path + under_length - 1);
	}
	if (failed) {
		atomic_fetch_add(&control->failed, 1);
		errno = control->error;
	}
	return failed;
}

/* --- what is durable ------------------------------------------------------------------------- */

struct durable {
	int bytes;	/* what the medium holds */
	int lost;	/* a page that failed, as it was then */
	int mask;	/* a byte a page: whether it is one */
};

/* What the shim opens itself does not count among the descriptors that a program may have. */
static struct rlimit
more_descriptors(void)
{
	struct rlimit before, more;
	REAL(getrlimit);
	real(RLIMIT_NOFILE, &before);
	more = before;
	more.rlim_cur = more.rlim_max;
	setrlimit(RLIMIT_NOFILE, &more);
	return before;
}

#define GETRLIMIT(name, limits) \
	int name(__rlimit_resource_t resource, struct limits *found) \
	{ \
		REAL(name); \
		int result = real(resource, found); \
		if (result == 0 && resource == RLIMIT_NOFILE && shows_limit_as_hard) \
			found->rlim_max = found->rlim_cur; \
		return result; \
	}

GETRLIMIT(getrlimit, rlimit)
GETRLIMIT(getrlimit64, rlimit64)

static int
open_durable(struct durable *file, ino_t inode)
{
	char path[600];
	snprintf(path, sizeof(path), "%s/%lu", medium, (unsigned long)inode);
	file->bytes = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	snprintf(path, sizeof(path), "%s/%lu.lost", medium, (unsigned long)inode);
	file->lost = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	snprintf(path, sizeof(path), "%s/%lu.mask", medium, (unsigned long)inode);
	file->mask = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	return file->bytes >= 0 && file->lost >= 0 && file->mask >= 0;
}

static void
close_durable(struct durable *file)
{
	if (file->bytes >= 0)
		close(file->bytes);
	if (file->lost >= 0)
		close(file->lost);
	if (file->mask >= 0)
		close(file->mask);
}

static int
holds(int fd, const char *page, size_t length, off_t at)
{
	char found[PAGE];
	ssize_t got = pread(fd, found, length, at);
	return got == (ssize_t)length && memcmp(found, page, length) == 0;
}

static void
write_back_page(struct durable *file, const char *page, size_t length, off_t at, int failed,
    int stored)
{
	char mark = 0;
	if (holds(file->bytes, page, length, at))
		return;
	if (!stored && pread(file->mask, &mark, 1, at / PAGE) == 1 && mark &&
	    holds(file->lost, page, length, at))
		return;		/* clean since it failed: nothing is written, and nobody complains */
	mark = (char)failed;
	if (pwrite(failed ? file->lost : file->bytes, page, length, at) != (ssize_t)length ||
	    pwrite(file->mask, &mark, 1, at / PAGE) != 1)
		abort();
}

static void
write_back_memory(ino_t inode, const char *from, size_t length, off_t at, int failed)
{
	struct durable file;
	if (medium[0] == 0)
		return;
	struct rlimit limit = more_descriptors();
	if (!open_durable(&file, inode))
		abort();
	/*
	 * A target flushes what has just come in: these pages were stored to, with the same bytes even, and
	 * so are dirty again.  It flushes nothing a second time by itself: it gives the lane up that was
	 * refused once.
	 */
	for (size_t done = 0; done < length; done += PAGE)
		write_back_page(&file, from + done, length - done < PAGE ? length - done : PAGE,
		    at + (off_t)done, failed, side == TARGET);
	close_durable(&file);
	setrlimit(RLIMIT_NOFILE, &limit);
}

static void
write_back_directory(int fd, ino_t inode)
{
	char path[600], own[64];
	snprintf(own, sizeof(own), "/proc/self/fd/%d", fd);
	snprintf(path, sizeof(path), "%s/%lu.names", medium, (unsigned long)inode);
	DIR *directory = opendir(own);
	FILE *names = fopen(path, "we");
	if (directory == NULL || names == NULL)
		abort();
	for (struct dirent *entry; (entry = readdir(directory)) != NULL;)
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
			fprintf(names, "%lu %s\n", (unsigned long)entry->d_ino, entry->d_name);
	fclose(names);
	closedir(directory);
}

/* All of a file, or the names of a directory, become durable, or fail to. */
static void
write_back(int fd, int failed)
{
	struct stat about;
	int before = errno;
	if (medium[0] == 0)
		return;
	inside++;
	struct rlimit limit = more_descriptors();
	if (fstat(fd, &about) == 0 && S_ISDIR(about.st_mode)) {
		if (!failed)
			write_back_directory(fd, about.st_ino);
	} else if (S_ISREG(about.st_mode)) {
		char own[64], page[PAGE];
		struct durable file;
		ssize_t length;
		snprintf(own, sizeof(own), "/proc/self/fd/%d", fd);
		int source = open(own, O_RDONLY | O_CLOEXEC);
		if (source < 0 || !open_durable(&file, about.st_ino))
			abort();
		for (off_t at = 0; (length = pread(source, page, PAGE, at)) > 0; at += length)
			write_back_page(&file, page, (size_t)length, at, failed, 0);
		if (!failed && ftruncate(file.bytes, about.st_size) != 0)
			abort();
		close_durable(&file);
		close(source);
	}
	setrlimit(RLIMIT_NOFILE, &limit);
	inside--;
	errno = before;
}

/* Clean pages are thrown away and read again, those too whose write-back had failed. */
static void
read_again(int fd)
{
	struct stat about;
	struct durable file;
	char page[PAGE], mark, own[64];
	int before = errno;
	if (medium[0] == 0)
		return;
	inside++;
	struct rlimit limit = more_descriptors();
	snprintf(own, sizeof(own), "/proc/self/fd/%d", fd);
	int sink = open(own, O_RDWR | O_CLOEXEC);
	if (sink >= 0 && fstat(fd, &about) == 0 && open_durable(&file, about.st_ino)) {
		for (off_t at = 0; at < about.st_size; at += PAGE) {
			if (pread(file.mask, &mark, 1, at / PAGE) != 1 || mark == 0)
				continue;
			ssize_t length = pread(sink, page, PAGE, at);
			if (length <= 0 || !holds(file.lost, page, (size_t)length, at))
				continue;
			memset(page, 0, PAGE);
			if (pread(file.bytes, page, (size_t)length, at) < 0 ||
			    pwrite(sink, page, (size_t)length, at) != length)
				abort();
		}
		close_durable(&file);
	}
	if (sink >= 0)
		close(sink);
	setrlimit(RLIMIT_NOFILE, &limit);
	inside--;
	errno = before;
}

static void
forget_mappings(const char *base, size_t length)
{
	for (int i = 0; i < MOST_MAPPINGS; i++)
		if (mappings[i].base != NULL && mappings[i].base < base + length &&
		    base < mappings[i].base + mappings[i].length)
			mappings[i].base = NULL;
}

static void
note_mapping(char *base, size_t length, int fd, off_t offset)
{
	struct stat about;
	if (fstat(fd, &about) != 0)
		abort();
	pthread_mutex_lock(&lock);
	forget_mappings(base, length);
	int i = 0;
	while (i < MOST_MAPPINGS && mappings[i].base != NULL)
		i++;
	if (i == MOST_MAPPINGS)
		abort();
	mappings[i] = (struct mapping){base, length, offset, about.st_ino};
	pthread_mutex_unlock(&lock);
}

static int
mapping_at(const char *address, struct mapping *found)
{
	int there = 0;
	pthread_mutex_lock(&lock);
	for (int i = 0; i < MOST_MAPPINGS && !there; i++)
		if (mappings[i].base != NULL && address >= mappings[i].base &&
		    address < mappings[i].base + mappings[i].length) {
			*found = mappings[i];
			there = 1;
		}
	pthread_mutex_unlock(&lock);
	return there;
}

/* --- calls on a path ------------------------------------------------------------------------- */

#define WITH_MODE(flags, mode) \
	mode_t mode = 0; \
	if (((flags) & O_CREAT) != 0 || ((flags) & O_TMPFILE) == O_TMPFILE) { \
		va_list more; \
		va_start(more, flags); \
		mode = va_arg(more, mode_t); \
		va_end(more); \
	}

#define OPEN(name) \
	int name(const char *file, int flags, ...) \
	{ \
		char path[512]; \
		WITH_MODE(flags, mode) \
		REAL(name); \
		return fails("open", path_at(AT_FDCWD, file, path)) ? -1 : real(file, flags, mode); \
	}

#define OPENAT(name) \
	int name(int at, const char *file, int flags, ...) \
	{ \
		char path[512]; \
		WITH_MODE(flags, mode) \
		REAL(name); \
		return fails("open", path_at(at, file, path)) ? -1 : real(at, file, flags, mode); \
	}

OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)

#define ON_PATH(kind, type, name, failure, arguments, values, at, file) \
	type name arguments \
	{ \
		char path[512]; \
		REAL(name); \
		return fails(kind, path_at(at, file, path)) ? failure : real values; \
	}

ON_PATH("open", int, creat, -1, (const char *file, mode_t mode), (file, mode), AT_FDCWD, file)
ON_PATH("open", int, creat64, -1, (const char *file, mode_t mode), (file, mode), AT_FDCWD, file)
ON_PATH("open", FILE *, fopen, NULL, (const char *file, const char *how), (file, how),
    AT_FDCWD, file)
ON_PATH("open", FILE *, fopen64, NULL, (const char *file, const char *how), (file, how),
    AT_FDCWD, file)
ON_PATH("open", DIR *, opendir, NULL, (const char *file), (file), AT_FDCWD, file)
ON_PATH("unlink", int, unlink, -1, (const char *file), (file), AT_FDCWD, file)
ON_PATH("unlink", int, unlinkat, -1, (int at, const char *file, int flags), (at, file, flags),
    at, file)
ON_PATH("unlink", int, rmdir, -1, (const char *file), (file), AT_FDCWD, file)
ON_PATH("unlink", int, remove, -1, (const char *file), (file), AT_FDCWD, file)
ON_PATH("rename", int, rename, -1, (const char *from, const char *to), (from, to), AT_FDCWD, to)
ON_PATH("rename", int, renameat, -1, (int f, const char *from, int t, const char *to),
    (f, from, t, to), t, to)
ON_PATH("rename", int, renameat2, -1,
    (int f, const char *from, int t, const char *to, unsigned flags), (f, from, t, to, flags), t, to)
ON_PATH("link", int, link, -1, (const char *from, const char *to), (from, to), AT_FDCWD, to)
ON_PATH("link", int, linkat, -1, (int f, const char *from, int t, const char *to, int flags),
    (f, from, t, to, flags), t, to)
ON_PATH("link", int, symlink, -1, (const char *from, const char *to), (from, to), AT_FDCWD, to)
ON_PATH("mkdir", int, mkdir, -1, (const char *file, mode_t mode), (file, mode), AT_FDCWD, file)
ON_PATH("mkdir", int, mkdirat, -1, (int at, const char *file, mode_t mode), (at, file, mode),
    at, file)
ON_PATH("chmod", int, chmod, -1, (const char *file, mode_t mode), (file, mode), AT_FDCWD, file)
ON_PATH("chmod", int, fchmodat, -1, (int at, const char *file, mode_t mode, int flags),
    (at, file, mode, flags), at, file)
ON_PATH("truncate", int, truncate, -1, (const char *file, off_t length), (file, length),
    AT_FDCWD, file)
ON_PATH("truncate", int, truncate64, -1, (const char *file, off64_t length), (file, length),
    AT_FDCWD, file)
ON_PATH("statfs", int, statvfs, -1, (const char *file, struct statvfs *to), (file, to),
    AT_FDCWD, file)
ON_PATH("statfs", int, statvfs64, -1, (const char *file, struct statvfs64 *to), (file, to),
    AT_FDCWD, file)

/* --- calls on a descriptor ------------------------------------------------------------------- */

#define ON_FD(kind, type, name, arguments, values) \
	type name arguments \
	{ \
		char path[512]; \
		REAL(name); \
		return fails(kind, path_of(fd, path)) ? -1 : real values; \
	}

ON_FD("read", ssize_t, read, (int fd, void *to, size_t length), (fd, to, length))
ON_FD("read", ssize_t, pread, (int fd, void *to, size_t length, off_t at), (fd, to, length, at))
ON_FD("read", ssize_t, pread64, (int fd, void *to, size_t length, off64_t at),
    (fd, to, length, at))
ON_FD("truncate", int, ftruncate, (int fd, off_t length), (fd, length))
ON_FD("truncate", int, ftruncate64, (int fd, off64_t length), (fd, length))
ON_FD("fallocate", int, fallocate, (int fd, int mode, off_t at, off_t length),
    (fd, mode, at, length))
ON_FD("fallocate", int, fallocate64, (int fd, int mode, off64_t at, off64_t length),
    (fd, mode, at, length))
ON_FD("flock", int, flock, (int fd, int how), (fd, how))
ON_FD("chmod", int, fchmod, (int fd, mode_t mode), (fd, mode))
ON_FD("statfs", int, fstatvfs, (int fd, struct statvfs *to), (fd, to))
ON_FD("statfs", int, fstatvfs64, (int fd, struct statvfs64 *to), (fd, to))
ON_FD("dup", int, dup, (int fd), (fd))
ON_FD("dup", int, dup2, (int fd, int to), (fd, to))
ON_FD("dup", int, dup3, (int fd, int to, int flags), (fd, to, flags))

#define WRITE(name, arguments, values, half) \
	ssize_t name arguments \
	{ \
		char path[512]; \
		REAL(name); \
		if (!fails("write", path_of(fd, path))) \
			return real values; \
		return control->error == 0 ? real half : -1; \
	}

WRITE(write, (int fd, const void *from, size_t length), (fd, from, length), (fd, from, length / 2))
WRITE(pwrite, (int fd, const void *from, size_t length, off_t at), (fd, from, length, at),
    (fd, from, length / 2, at))
WRITE(pwrite64, (int fd, const void *from, size_t length, off64_t at), (fd, from, length, at),
    (fd, from, length / 2, at))
WRITE(writev, (int fd, const struct iovec *from, int count), (fd, from, count),
    (fd, from, count / 2))
WRITE(pwritev, (int fd, const struct iovec *from, int count, off_t at), (fd, from, count, at),
    (fd, from, count / 2, at))
WRITE(pwritev64, (int fd, const struct iovec *from, int count, off64_t at), (fd, from, count, at),
    (fd, from, count / 2, at))

/* These return an errno, and leave the variable alone. */
#define ALLOCATE(name, kind, type) \
	int name(int fd, type at, type length) \
	{ \
		char path[512]; \
		int before = errno; \
		REAL(name); \
		if (!fails(kind, path_of(fd, path))) \
			return real(fd, at, length); \
		int failure = errno; \
		errno = before; \
		return failure; \
	}

ALLOCATE(posix_fallocate, "fallocate", off_t)
ALLOCATE(posix_fallocate64, "fallocate", off64_t)

#define ADVISE(name, type) \
	int name(int fd, type at, type length, int advice) \
	{ \
		char path[512]; \
		REAL(name); \
		int ours = path_of(fd, path) != NULL; \
		if (ours && fails("fadvise", path)) \
			return errno; \
		if (ours && advice == POSIX_FADV_DONTNEED) \
			read_again(fd); \
		return real(fd, at, length, advice); \
	}

ADVISE(posix_fadvise, off_t)
ADVISE(posix_fadvise64, off64_t)

#define STATFS(name, type) \
	int name(int fd, struct type *to) \
	{ \
		char path[512]; \
		REAL(name); \
		const char *ours = path_of(fd, path); \
		if (fails("statfs", ours)) \
			return -1; \
		int rc = real(fd, to); \
		if (rc == 0 && ours != NULL && control->page_cache && to->f_type == TMPFS_MAGIC) \
			to->f_type = EXT4_SUPER_MAGIC; \
		return rc; \
	}

STATFS(fstatfs, statfs)
STATFS(fstatfs64, statfs64)

/* The kernel takes the descriptor away whatever close() returns. */
int
close(int fd)
{
	char path[512];
	REAL(close);
	if (!fails("close", path_of(fd, path)))
		return real(fd);
	real(fd);
	errno = control->error;
	return -1;
}

#define FCNTL(name) \
	int name(int fd, int command, ...) \
	{ \
		char path[512]; \
		va_list more; \
		va_start(more, command); \
		void *value = va_arg(more, void *); \
		va_end(more); \
		REAL(name); \
		const char *kind = command == F_DUPFD || command == F_DUPFD_CLOEXEC ? "dup" : \
		    command == F_SETLK || command == F_SETLKW || command == F_OFD_SETLK || \
		    command == F_OFD_SETLKW ? "fcntl-lock" : NULL; \
		return kind != NULL && fails(kind, path_of(fd, path)) ? -1 : \
		    real(fd, command, value); \
	}

FCNTL(fcntl)
FCNTL(fcntl64)

/* --- what makes things durable --------------------------------------------------------------- */

#define SYNC(name) \
	int name(int fd) \
	{ \
		char path[512]; \
		REAL(name); \
		const char *ours = path_of(fd, path); \
		int failed = fails("fsync", ours); \
		if (ours != NULL) \
			write_back(fd, failed); \
		return !failed ? real(fd) : control->swallow ? 0 : -1; \
	}

SYNC(fsync)
SYNC(fdatasync)

int
msync(void *address, size_t length, int flags)
{
	struct mapping ours;
	REAL(msync);
	if (control == NULL || inside || !mapping_at(address, &ours))
		return real(address, length, flags);
	char path[64];
	snprintf(path, sizeof(path), "%.*s", (int)under_length, under);
	int failed = fails("msync", path), error = errno;
	off_t at = ours.offset + ((char *)address - ours.base);
	size_t there = (size_t)(ours.base + ours.length - (char *)address);
	inside++;
	write_back_memory(ours.inode, address, length < there ? length : there, at, failed);
	inside--;
	errno = error;
	return !failed ? real(address, length, flags) : control->swallow ? 0 : -1;
}

#define MMAP(name, type) \
	void *name(void *wish, size_t length, int protection, int flags, int fd, type offset) \
	{ \
		char path[512]; \
		REAL(name); \
		const char *ours = (flags & MAP_ANONYMOUS) == 0 ? path_of(fd, path) : \
		    from_rpmem(__builtin_return_address(0)) ? under : NULL; \
		if (fails(ours == under ? "mmap-anonymous" : "mmap", ours)) \
			return MAP_FAILED; \
		void *address = real(wish, length, protection, flags, fd, offset); \
		if (address != MAP_FAILED && ours != NULL && ours != under && (flags & MAP_SHARED)) \
			note_mapping(address, length, fd, offset); \
		return address; \
	}

MMAP(mmap, off_t)
MMAP(mmap64, off64_t)

int
munmap(void *address, size_t length)
{
	REAL(munmap);
	if (fails("munmap", from_rpmem(__builtin_return_address(0)) ? under : NULL))
		return -1;
	if (control != NULL && !inside) {
		pthread_mutex_lock(&lock);
		forget_mappings(address, length);
		pthread_mutex_unlock(&lock);
	}
	return real(address, length);
}
