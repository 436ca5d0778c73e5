# Nothing here is visible to Python: rpmem.fabric.libfabric.lane uses it.
