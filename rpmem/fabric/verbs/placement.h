/* RDMA FLUSH and ATOMIC WRITE, which rdma-core has since version 45.
 *
 * An older one makes no queue pair that has these operations, so none of them is called.
 */
#ifndef RPMEM_PLACEMENT_H
#define RPMEM_PLACEMENT_H

#include "rpmem/fabric/verbs/libibverbs.h"

/* The kernel's own numbers. */
#define PLACEMENT_DEVICE_FLUSH_PERSISTENT (1ULL << 39)
#define PLACEMENT_DEVICE_ATOMIC_WRITE (1ULL << 40)
#define PLACEMENT_ACCESS (1 << 8 | 1 << 9)

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

#endif
