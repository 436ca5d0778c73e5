# Nothing here is visible to Python: rpmem._libfabric makes lanes of it.
