"""The part of libpmem2 that rpmem uses; `bind_libpmem2` comes before any of it."""

from libc.stdint cimport uint64_t

from rpmem.base.library cimport bind, rpmem_symbol_t
from rpmem.memory.media cimport pmem_drain_fn, pmem_range_fn


cdef extern from "rpmem/memory/libpmem2.h" nogil:
    const rpmem_symbol_t *rpmem_libpmem2
    struct pmem2_config:
        pass
    struct pmem2_map:
        pass
    struct pmem2_source:
        pass
    struct pmem2_vm_reservation:
        pass
    enum pmem2_granularity:
        PMEM2_GRANULARITY_BYTE
        PMEM2_GRANULARITY_CACHE_LINE
        PMEM2_GRANULARITY_PAGE

    const unsigned PMEM2_PROT_READ

    int pmem2_source_from_fd(pmem2_source **, int)
    int pmem2_source_from_anon(pmem2_source **, size_t)
    int pmem2_source_delete(pmem2_source **)
    int pmem2_source_device_id(const pmem2_source *, char *, size_t *)
    int pmem2_source_device_usc(const pmem2_source *, uint64_t *)
    int pmem2_vm_reservation_new(pmem2_vm_reservation **, void *, size_t)
    int pmem2_vm_reservation_delete(pmem2_vm_reservation **)
    void *pmem2_vm_reservation_get_address(pmem2_vm_reservation *)
    int pmem2_config_new(pmem2_config **)
    int pmem2_config_delete(pmem2_config **)
    int pmem2_config_set_required_store_granularity(pmem2_config *, pmem2_granularity)
    int pmem2_config_set_offset(pmem2_config *, size_t)
    int pmem2_config_set_length(pmem2_config *, size_t)
    int pmem2_config_set_protection(pmem2_config *, unsigned)
    int pmem2_config_set_vm_reservation(pmem2_config *, pmem2_vm_reservation *, size_t)
    int pmem2_map_new(pmem2_map **, const pmem2_config *, const pmem2_source *)
    int pmem2_map_from_existing(
        pmem2_map **, const pmem2_source *, void *, size_t, pmem2_granularity)
    int pmem2_map_delete(pmem2_map **)
    void *pmem2_map_get_address(pmem2_map *)
    pmem2_granularity pmem2_map_get_store_granularity(pmem2_map *)
    pmem_range_fn pmem2_get_persist_fn(pmem2_map *)
    pmem_range_fn pmem2_get_flush_fn(pmem2_map *)
    pmem_drain_fn pmem2_get_drain_fn(pmem2_map *)
    int pmem2_deep_flush(pmem2_map *, void *, size_t)
    const char *pmem2_errormsg()


cdef inline int bind_libpmem2() except -1:
    """Open libpmem2, or raise MissingExtension."""
    return bind("libpmem2", rpmem_libpmem2)
