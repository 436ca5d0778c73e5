/* Libmemkind, opened at run time. Its functions have no versions. */
#ifndef RPMEM_LIBMEMKIND_H
#define RPMEM_LIBMEMKIND_H

#include <memkind.h>

#include "rpmem/base/library.h"

#define RPMEM_LIBMEMKIND_FUNCTIONS(SEEK)                                                         \
	SEEK(int, memkind_check_available, NULL, (memkind_t kind), (kind))                       \
	SEEK(ssize_t, memkind_get_capacity, NULL, (memkind_t kind), (kind))                      \
	SEEK(int, memkind_create_pmem, NULL,                                                     \
	     (const char *directory, size_t max_size, memkind_t *kind),                          \
	     (directory, max_size, kind))                                                        \
	SEEK(int, memkind_destroy_kind, NULL, (memkind_t kind), (kind))                          \
	SEEK(void, memkind_error_message, NULL, (int code, char *message, size_t size),          \
	     (code, message, size))                                                              \
	SEEK(void *, memkind_malloc, NULL, (memkind_t kind, size_t size), (kind, size))          \
	SEEK(void *, memkind_calloc, NULL, (memkind_t kind, size_t count, size_t size),          \
	     (kind, count, size))                                                                \
	SEEK(void *, memkind_realloc, NULL, (memkind_t kind, void *block, size_t size),          \
	     (kind, block, size))                                                                \
	SEEK(void, memkind_free, NULL, (memkind_t kind, void *block), (kind, block))             \
	SEEK(size_t, memkind_malloc_usable_size, NULL, (memkind_t kind, void *block), (kind, block))

RPMEM_LIBRARY(rpmem_libmemkind, RPMEM_LIBMEMKIND_FUNCTIONS)

#endif
