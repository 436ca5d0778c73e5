# cython: language_level=3
"""PMDK 0.1's two persistency methods as durability steps."""

from rpmem.steps.step cimport step_t


cdef const step_t *pmdk_step_named(str name) except NULL
