# Nothing here is visible to Python: neighbouring modules cimport it.
