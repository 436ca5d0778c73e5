/*
 * Starting libfabric while it cannot see /proc/kallsyms: one entry of its own table of imported
 * functions is replaced during one call. No other library is touched.
 */
#ifndef RPMEM_FABRIC_LOAD_H
#define RPMEM_FABRIC_LOAD_H

#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <link.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#if __SIZEOF_POINTER__ == 8 && defined(__GLIBC__)

typedef struct {
	ElfW(Addr) base;
	ElfW(Addr) begin, end; /* what the loader made read-only after relocation */
} relro_t;

static FILE *(*rpmem_real_fopen)(const char *, const char *);

static FILE *rpmem_fopen_without_kallsyms(const char *path, const char *mode)
{
	if (strcmp(path, "/proc/kallsyms") == 0) {
		errno = ENOENT;
		return NULL;
	}
	return rpmem_real_fopen(path, mode);
}

static ElfW(Addr) rpmem_dynamic(const struct link_map *map, ElfW(Sxword) tag)
{
	for (const ElfW(Dyn) *d = map->l_ld; d->d_tag != DT_NULL; d++)
		if (d->d_tag == tag)
			return d->d_un.d_ptr;
	return 0;
}

/* The entry through which the library calls `name`, or NULL. */
static void **rpmem_import_slot(const struct link_map *map, const char *name)
{
	const ElfW(Sym) *symbols = (const ElfW(Sym) *)rpmem_dynamic(map, DT_SYMTAB);
	const char *strings = (const char *)rpmem_dynamic(map, DT_STRTAB);
	const struct { ElfW(Sxword) table, size; } lists[] = {
		{ DT_JMPREL, DT_PLTRELSZ }, { DT_RELA, DT_RELASZ },
	};

	if (!symbols || !strings)
		return NULL;
	for (size_t l = 0; l < sizeof lists / sizeof *lists; l++) {
		const ElfW(Rela) *r = (const ElfW(Rela) *)rpmem_dynamic(map, lists[l].table);
		size_t count = rpmem_dynamic(map, lists[l].size) / sizeof *r;

		for (size_t i = 0; r && i < count; i++) {
			size_t symbol = ELF64_R_SYM(r[i].r_info);

			if (symbol && !strcmp(strings + symbols[symbol].st_name, name))
				return (void **)(map->l_addr + r[i].r_offset);
		}
	}
	return NULL;
}

static int rpmem_find_relro(struct dl_phdr_info *info, size_t size, void *argument)
{
	relro_t *relro = argument;

	(void)size;
	if (info->dlpi_addr != relro->base)
		return 0;
	for (int i = 0; i < info->dlpi_phnum; i++) {
		if (info->dlpi_phdr[i].p_type != PT_GNU_RELRO)
			continue;
		relro->begin = relro->base + info->dlpi_phdr[i].p_vaddr;
		relro->end = relro->begin + info->dlpi_phdr[i].p_memsz;
	}
	return 1;
}

static int rpmem_write_slot(void **slot, void *value, const relro_t *relro)
{
	ElfW(Addr) page = (ElfW(Addr))sysconf(_SC_PAGESIZE);
	ElfW(Addr) at = (ElfW(Addr))slot;
	int is_read_only = at >= relro->begin && at < relro->end;
	void *begin = (void *)(at & ~(page - 1));

	if (is_read_only && mprotect(begin, page, PROT_READ | PROT_WRITE))
		return -1;
	*slot = value;
	if (is_read_only)
		mprotect(begin, page, PROT_READ);
	return 0;
}

/* Call begin() of the library while it cannot open /proc/kallsyms; normally if that fails. */
static void rpmem_without_kallsyms(void *library, void (*begin)(void *), void *argument)
{
	struct link_map *map = NULL;
	relro_t relro = { 0 };
	void **slot = NULL;

	if (dlinfo(library, RTLD_DI_LINKMAP, &map) == 0 && map)
		slot = rpmem_import_slot(map, "fopen");
	/* Another function is in that place (a sanitizer's, a tracer's): leave it alone. */
	if (slot && *slot == dlsym(RTLD_DEFAULT, "fopen")) {
		relro.base = map->l_addr;
		dl_iterate_phdr(rpmem_find_relro, &relro);
		memcpy(&rpmem_real_fopen, slot, sizeof rpmem_real_fopen);
		if (rpmem_write_slot(slot, (void *)rpmem_fopen_without_kallsyms, &relro))
			slot = NULL;
	} else {
		slot = NULL;
	}
	begin(argument);
	if (slot)
		rpmem_write_slot(slot, (void *)rpmem_real_fopen, &relro);
}

#else

static void rpmem_without_kallsyms(void *library, void (*begin)(void *), void *argument)
{
	(void)library;
	begin(argument);
}

#endif

#endif
