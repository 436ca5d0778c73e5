# cython: language_level=3
"""Deliberate mistakes, one per function, that the debug build has to report."""

from libc.stdlib cimport free, malloc


def store_behind(int size):
    """Store one byte behind what was allocated."""
    cdef volatile char *memory = <volatile char *> malloc(size)
    memory[size] = 1
    free(<void *> memory)


def load_freed(int size):
    """Load what was freed."""
    cdef volatile char *memory = <volatile char *> malloc(size)
    memory[0] = 1
    free(<void *> memory)
    return memory[0]


def store_behind_stack(int size):
    """Store one byte behind an array on the stack."""
    cdef char[8] memory
    cdef volatile char *byte = memory
    byte[size] = 1


def overflow(int size):
    """Add beyond the largest int."""
    cdef volatile int largest = 0x7fffffff
    return largest + size


def index_behind(int size):
    """Index an array with what is no index of it."""
    cdef int[8] numbers
    numbers[0] = 1
    return numbers[size]
