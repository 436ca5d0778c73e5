# Nothing here is visible to Python: rpmem._core uses it for local flushes.
