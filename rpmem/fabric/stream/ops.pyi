# Nothing here is visible to Python: rpmem.fabric.stream.lane uses it.
