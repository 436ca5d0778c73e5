# Nothing here is visible to Python: rpmem._core turns objects into ranges with it.
