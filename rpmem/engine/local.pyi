# Nothing here is visible to Python: rpmem._core flushes by way of it.
