# Nothing here is visible to Python: the modules beside it use it.
