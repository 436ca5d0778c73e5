# Nothing here is visible to Python: rpmem._core runs its calls through it.
