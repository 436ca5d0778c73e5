/* Libfabric, opened at run time. Its headers define all other functions as calls of these. */
#ifndef RPMEM_LIBFABRIC_H
#define RPMEM_LIBFABRIC_H

#include <rdma/fabric.h>
#include <rdma/fi_cm.h>
#include <rdma/fi_domain.h>
#include <rdma/fi_endpoint.h>
#include <rdma/fi_eq.h>
#include <rdma/fi_errno.h>
#include <rdma/fi_rma.h>

#include "rpmem/base/library.h"

/* The struct fi_info of versions above FABRIC_1.3 is another one. */
#define RPMEM_LIBFABRIC_LIST(SEEK)                                                               \
	SEEK(uint32_t, fi_version, "FABRIC_1.0", (void), ())                                     \
	SEEK(const char *, fi_strerror, "FABRIC_1.0", (int number), (number))                    \
	SEEK(int, fi_fabric, "FABRIC_1.1",                                                       \
	     (struct fi_fabric_attr * attr, struct fid_fabric **fabric, void *context),          \
	     (attr, fabric, context))                                                            \
	SEEK(int, fi_getinfo, "FABRIC_1.3",                                                      \
	     (uint32_t version, const char *node, const char *service, uint64_t flags,           \
	      const struct fi_info *hints, struct fi_info **info),                               \
	     (version, node, service, flags, hints, info))                                       \
	SEEK(void, fi_freeinfo, "FABRIC_1.3", (struct fi_info * info), (info))                   \
	SEEK(struct fi_info *, fi_dupinfo, "FABRIC_1.3", (const struct fi_info *info), (info))

RPMEM_LIBRARY(rpmem_libfabric, RPMEM_LIBFABRIC_LIST)

#endif
