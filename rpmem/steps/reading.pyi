# Nothing here is visible to Python: the steps are chosen by name through rpmem._core.
