/* RDMA FLUSH and ATOMIC WRITE, which rdma-core's headers have since version 45.
 *
 * RPMEM_RDMA_CORE is the version setup.py found.  With older headers there is nothing
 * to call: PLACEMENT_KNOWN is 0, and no queue pair that needs them is made.
 */
#ifndef RPMEM_PLACEMENT_H
#define RPMEM_PLACEMENT_H

#include <infiniband/verbs.h>

#ifndef RPMEM_RDMA_CORE
#define RPMEM_RDMA_CORE 0
#endif

/* The kernel's own numbers, regardless of the headers. */
#define PLACEMENT_DEVICE_FLUSH_PERSISTENT (1ULL << 39)
#define PLACEMENT_DEVICE_ATOMIC_WRITE (1ULL << 40)
#define PLACEMENT_ACCESS (1 << 8 | 1 << 9)

#if RPMEM_RDMA_CORE >= 45

#define PLACEMENT_KNOWN 1
#define PLACEMENT_OPERATIONS (IBV_QP_EX_WITH_FLUSH | IBV_QP_EX_WITH_ATOMIC_WRITE)

/* Everything written to these bytes before this is persistent once it completes. */
static inline void placement_flush(struct ibv_qp_ex *qp, uint32_t key, uint64_t address,
                                   size_t length)
{
    ibv_wr_flush(qp, key, address, length, IBV_FLUSH_GLOBAL | IBV_FLUSH_PERSISTENT,
                 IBV_FLUSH_RANGE);
}

static inline void placement_write_word(struct ibv_qp_ex *qp, uint32_t key, uint64_t address,
                                        const void *word)
{
    ibv_wr_atomic_write(qp, key, address, word);
}

#else

#define PLACEMENT_KNOWN 0
#define PLACEMENT_OPERATIONS 0

static inline void placement_flush(struct ibv_qp_ex *qp, uint32_t key, uint64_t address,
                                   size_t length)
{
    (void) qp, (void) key, (void) address, (void) length;
}

static inline void placement_write_word(struct ibv_qp_ex *qp, uint32_t key, uint64_t address,
                                        const void *word)
{
    (void) qp, (void) key, (void) address, (void) word;
}

#endif

#endif
