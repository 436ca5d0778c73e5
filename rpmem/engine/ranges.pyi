# Nothing here is visible to Python: rpmem._core uses it to turn objects into ranges.
