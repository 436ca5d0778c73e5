# Nothing here is visible to Python: engine and service cimport it.
