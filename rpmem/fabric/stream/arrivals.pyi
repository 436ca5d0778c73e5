# Nothing here is visible to Python: rpmem.fabric.stream.ops uses it.
