/* Libpmem2, opened at run time. */
#ifndef RPMEM_LIBPMEM2_H
#define RPMEM_LIBPMEM2_H

#include <libpmem2.h>

#include "rpmem/base/library.h"

#define RPMEM_PMEM2(SEEK, result, name, parameters, arguments) \
	SEEK(result, name, "LIBPMEM2_1.0", parameters, arguments)

#define RPMEM_LIBPMEM2_SOURCES(SEEK)                                                       \
	RPMEM_PMEM2(SEEK, int, pmem2_source_from_fd,                                        \
	    (struct pmem2_source **source, int fd), (source, fd))                           \
	RPMEM_PMEM2(SEEK, int, pmem2_source_from_anon,                                      \
	    (struct pmem2_source **source, size_t size), (source, size))                    \
	RPMEM_PMEM2(SEEK, int, pmem2_source_delete,                                         \
	    (struct pmem2_source **source), (source))                                       \
	RPMEM_PMEM2(SEEK, int, pmem2_source_device_id,                                      \
	    (const struct pmem2_source *source, char *id, size_t *length),                  \
	    (source, id, length))                                                           \
	RPMEM_PMEM2(SEEK, int, pmem2_source_device_usc,                                     \
	    (const struct pmem2_source *source, uint64_t *count), (source, count))

#define RPMEM_LIBPMEM2_CONFIGS(SEEK)                                                       \
	RPMEM_PMEM2(SEEK, int, pmem2_vm_reservation_new,                                    \
	    (struct pmem2_vm_reservation **room, void *address, size_t size),               \
	    (room, address, size))                                                          \
	RPMEM_PMEM2(SEEK, int, pmem2_vm_reservation_delete,                                 \
	    (struct pmem2_vm_reservation **room), (room))                                   \
	RPMEM_PMEM2(SEEK, int, pmem2_config_new, (struct pmem2_config **config), (config))  \
	RPMEM_PMEM2(SEEK, int, pmem2_config_delete,                                         \
	    (struct pmem2_config **config), (config))                                       \
	RPMEM_PMEM2(SEEK, int, pmem2_config_set_required_store_granularity,                 \
	    (struct pmem2_config *config, enum pmem2_granularity wanted), (config, wanted)) \
	RPMEM_PMEM2(SEEK, int, pmem2_config_set_offset,                                     \
	    (struct pmem2_config *config, size_t offset), (config, offset))                 \
	RPMEM_PMEM2(SEEK, int, pmem2_config_set_length,                                     \
	    (struct pmem2_config *config, size_t length), (config, length))                 \
	RPMEM_PMEM2(SEEK, int, pmem2_config_set_protection,                                 \
	    (struct pmem2_config *config, unsigned wanted), (config, wanted))               \
	RPMEM_PMEM2(SEEK, int, pmem2_config_set_vm_reservation,                             \
	    (struct pmem2_config *config, struct pmem2_vm_reservation *room,                \
	     size_t offset),                                                                \
	    (config, room, offset))

#define RPMEM_LIBPMEM2_MAPS(SEEK)                                                          \
	RPMEM_PMEM2(SEEK, int, pmem2_map_new,                                               \
	    (struct pmem2_map **map, const struct pmem2_config *config,                     \
	     const struct pmem2_source *source),                                            \
	    (map, config, source))                                                          \
	RPMEM_PMEM2(SEEK, int, pmem2_map_from_existing,                                     \
	    (struct pmem2_map **map, const struct pmem2_source *source, void *address,      \
	     size_t length, enum pmem2_granularity known),                                  \
	    (map, source, address, length, known))                                          \
	RPMEM_PMEM2(SEEK, int, pmem2_map_delete, (struct pmem2_map **map), (map))           \
	RPMEM_PMEM2(SEEK, void *, pmem2_map_get_address, (struct pmem2_map *map), (map))    \
	RPMEM_PMEM2(SEEK, enum pmem2_granularity, pmem2_map_get_store_granularity,          \
	    (struct pmem2_map *map), (map))                                                 \
	RPMEM_PMEM2(SEEK, pmem2_persist_fn, pmem2_get_persist_fn,                           \
	    (struct pmem2_map *map), (map))                                                 \
	RPMEM_PMEM2(SEEK, pmem2_flush_fn, pmem2_get_flush_fn,                               \
	    (struct pmem2_map *map), (map))                                                 \
	RPMEM_PMEM2(SEEK, pmem2_drain_fn, pmem2_get_drain_fn,                               \
	    (struct pmem2_map *map), (map))                                                 \
	RPMEM_PMEM2(SEEK, int, pmem2_deep_flush,                                            \
	    (struct pmem2_map *map, void *address, size_t length), (map, address, length))  \
	RPMEM_PMEM2(SEEK, const char *, pmem2_errormsg, (void), ())

#define RPMEM_LIBPMEM2_LIST(SEEK)   \
	RPMEM_LIBPMEM2_SOURCES(SEEK) \
	RPMEM_LIBPMEM2_CONFIGS(SEEK) \
	RPMEM_LIBPMEM2_MAPS(SEEK)

RPMEM_LIBRARY(rpmem_libpmem2, RPMEM_LIBPMEM2_LIST)

#endif
