# Nothing here is visible to Python: rpmem.fabric.libfabric.fabric makes lanes of it.
