"""Volatile memory for numpy arrays from sources other than malloc: libmemkind.

A kind is handed to numpy as a memory handler (NEP 49). Every array keeps the handler it was made
with, so its memory goes back to the right kind whenever and wherever it dies.

``memkind_detect_kind`` is never called: it crashes on memory that is not memkind's. numpy itself
remembers which handler an array belongs to.
"""

import errno as errnos
import os

import numpy

from rpmem.errors import ClosedError, ForkedError, UsageError
from rpmem.base.handles import refuse_copy

cimport numpy as cnp
from cpython.object cimport PyObject
from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_New
from libc.errno cimport errno
from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport strncpy

from rpmem.base.fork cimport fork_generation, is_copy
from rpmem.base.library cimport address_of, bind, rpmem_symbol_t

cnp.import_array()


cdef extern from "rpmem/memkind/libmemkind.h" nogil:
    const rpmem_symbol_t *rpmem_libmemkind
    enum:
        MEMKIND_ERROR_MESSAGE_SIZE
        MEMKIND_PMEM_MIN_SIZE

    int memkind_check_available(memkind_t kind)
    ssize_t memkind_get_capacity(memkind_t kind)
    int memkind_create_pmem(const char *directory, size_t max_size, memkind_t *kind)
    int memkind_destroy_kind(memkind_t kind)
    void memkind_error_message(int code, char *message, size_t size)
    void *memkind_malloc(memkind_t kind, size_t size)
    void *memkind_calloc(memkind_t kind, size_t count, size_t size)
    void *memkind_realloc(memkind_t kind, void *block, size_t size)
    void memkind_free(memkind_t kind, void *block)
    size_t memkind_malloc_usable_size(memkind_t kind, void *block)

cdef extern from * nogil:
    """
    #define rpmem_add(counter, value) __atomic_add_fetch((counter), (value), __ATOMIC_RELAXED)
    #define rpmem_value(counter) __atomic_load_n((counter), __ATOMIC_RELAXED)
    #define rpmem_forget_errno() (errno = 0)
    """
    void rpmem_forget_errno()
    int64_t rpmem_add(int64_t *counter, int64_t value)
    int64_t rpmem_value(const int64_t *counter)

cdef extern from "numpy/arrayobject.h":
    PyObject *array_handler "PyArray_HANDLER" (cnp.ndarray array)

bind("libmemkind", rpmem_libmemkind)

# --- what numpy calls ----------------------------------------------------------------------------

# A child shares the file of its parent's kind but has a copy of the bookkeeping: the parent would
# allocate again what the child allocated, and what the child freed would be cut out of the file.
cdef inline bint foreign(const heap_t *heap) noexcept nogil:
    return heap.of_file and is_copy(heap.born)


cdef inline void count(heap_t *heap, void *block, int sign) noexcept nogil:
    rpmem_add(&heap.blocks, sign)
    rpmem_add(&heap.bytes, sign * <int64_t> memkind_malloc_usable_size(heap.kind, block))


cdef void *heap_malloc(void *context, size_t size) noexcept nogil:
    cdef heap_t *heap = <heap_t *> context
    cdef void *block
    if foreign(heap) or heap.kind == NULL:
        return NULL
    block = memkind_malloc(heap.kind, size or 1)
    if block != NULL:
        count(heap, block, 1)
    return block


cdef void *heap_calloc(void *context, size_t number, size_t size) noexcept nogil:
    cdef heap_t *heap = <heap_t *> context
    cdef void *block
    if foreign(heap) or heap.kind == NULL:
        return NULL
    block = memkind_calloc(heap.kind, number or 1, size or 1)
    if block != NULL:
        count(heap, block, 1)
    return block


cdef void *heap_realloc(void *context, void *block, size_t size) noexcept nogil:
    cdef heap_t *heap = <heap_t *> context
    cdef void *moved
    cdef size_t before
    if block == NULL:
        return heap_malloc(context, size)
    if foreign(heap):
        return NULL
    before = memkind_malloc_usable_size(heap.kind, block)
    moved = memkind_realloc(heap.kind, block, size or 1)
    if moved != NULL:
        rpmem_add(&heap.bytes, <int64_t> memkind_malloc_usable_size(heap.kind, moved)
                  - <int64_t> before)
    return moved


cdef void heap_free(void *context, void *block, size_t size) noexcept nogil:
    cdef heap_t *heap = <heap_t *> context
    if block == NULL or foreign(heap):
        return
    count(heap, block, -1)
    memkind_free(heap.kind, block)


# --- the handler and its state -------------------------------------------------------------------
# ---------------------------------------------------------------------

cdef void destroy(heap_t *heap) noexcept:
    if heap.of_file and heap.kind != NULL and not foreign(heap):
        memkind_destroy_kind(heap.kind)
    heap.kind = NULL


cdef void capsule_dies(object capsule) noexcept:
    cdef heap_t *heap = <heap_t *> PyCapsule_GetPointer(capsule, b"mem_handler")
    destroy(heap)
    free(heap)


cdef heap_of(Kind self, memkind_t kind, bint of_file):
    cdef heap_t *heap = <heap_t *> calloc(1, sizeof(heap_t))
    cdef bytes label = b"memkind " + os.fsencode(self.name)
    if heap == NULL:
        if of_file:
            memkind_destroy_kind(kind)
        raise MemoryError("no memory for a kind")
    heap.kind = kind
    heap.of_file = of_file
    heap.born = fork_generation()
    strncpy(heap.handler.name, label, sizeof(heap.handler.name) - 1)
    heap.handler.version = 1
    heap.handler.allocator.ctx = heap
    heap.handler.allocator.malloc = heap_malloc
    heap.handler.allocator.calloc = heap_calloc
    heap.handler.allocator.realloc = heap_realloc
    heap.handler.allocator.free = heap_free
    # numpy takes this for the address of a handler, which is the first member.
    self.capsule = PyCapsule_New(heap, b"mem_handler", capsule_dies)
    self.heap = heap


cdef str words_for(int code):
    """memkind's message for one of its error numbers, which are not errno values."""
    cdef char message[MEMKIND_ERROR_MESSAGE_SIZE]
    memkind_error_message(code, message, sizeof(message))
    return (<bytes> message).decode("utf-8", "replace").removeprefix("<memkind> ")


# --- what Python sees ----------------------------------------------------------------------------

cdef class Handler:
    """Puts new numpy arrays into a kind, in a ``with`` block; see `Kind.numpy_handler`."""

    cdef Kind kind
    cdef list before

    def __cinit__(self, Kind kind not None):
        self.kind = kind
        self.before = []

    def __enter__(self):
        self.kind.check()
        self.before.append(cnp.PyDataMem_SetHandler(self.kind.capsule))
        return self.kind

    def __exit__(self, *_):
        cnp.PyDataMem_SetHandler(self.before.pop())


cdef class Kind:
    """A kind of memory that arrays can be put into.

    There is one per constant of `rpmem.memkind`, and one for each call of `rpmem.memkind.pmem`.

    Attributes
    ----------
    name : str
        ``"DAX_KMEM"``, for instance.

    Notes
    -----
    Allocations are volatile, whatever the medium: nothing can be found again after the process has
    ended. Use them for working copies; a replica makes those durable.
    """

    def __init__(self):
        raise TypeError("kinds are the constants of rpmem.memkind, or made by its pmem()")

    def __reduce__(self):
        refuse_copy(self, "Take the constant of rpmem.memkind where it is needed.")

    @property
    def available(self):
        """Whether this machine has memory of this kind."""
        return (not self.closed and not foreign(self.heap)
                and memkind_check_available(self.heap.kind) == 0)

    @property
    def capacity(self):
        """Bytes of memory of this kind that the machine has; None if that is not known."""
        if not self.available:
            return None
        cdef ssize_t size = memkind_get_capacity(self.heap.kind)
        return size if size > 0 else None

    @property
    def arrays(self):
        """How many arrays live in it, counting those made through this object."""
        return 0 if self.closed else rpmem_value(&self.heap.blocks)

    @property
    def allocated(self):
        """Bytes that these arrays take up."""
        return 0 if self.closed else rpmem_value(&self.heap.bytes)

    @property
    def closed(self):
        """Whether it was closed; only a kind in a file can be."""
        return self.heap == NULL

    cdef check(self):
        """Raise unless memory can be allocated from it now."""
        cdef int code
        if self.closed:
            raise ClosedError("the kind is closed", where=self.name)
        if foreign(self.heap):
            raise ForkedError(
                "the kind belongs to the parent process, and would share every byte with it",
                where=self.name, hint="Make one in the child")
        code = memkind_check_available(self.heap.kind)
        if code:
            raise UsageError(
                f"this machine has no such memory: {words_for(code)}", where=self.name,
                hint="See rpmem.memkind.available() for those it has",
                errno=errnos.ENODEV)

    def numpy_handler(self):
        """Return a context manager in which new numpy arrays are put into this kind.

        The memory goes back to the kind when an array dies, inside the block or long after it.
        Threads that are started inside the block do not inherit it; blocks can be nested.

        Raises
        ------
        UsageError
            The machine has no memory of this kind (when the block is entered).
        """
        return Handler(self)

    def empty(self, shape, dtype=float, order="C"):
        """Return a new array in this kind with undefined content, like `numpy.empty`."""
        with self.numpy_handler():
            return numpy.empty(shape, dtype, order)

    def zeros(self, shape, dtype=float, order="C"):
        """Return a new array of zeros in this kind, like `numpy.zeros`."""
        with self.numpy_handler():
            return numpy.zeros(shape, dtype, order)

    def holds(self, array):
        """Whether an array, or the one it is a view of, lives in this kind."""
        while isinstance(array, cnp.ndarray):
            if array.flags.owndata:
                return not self.closed and array_handler(array) == <PyObject *> self.capsule
            array = array.base
        return False

    def __repr__(self):
        state = "closed" if self.closed else f"{self.arrays} arrays, {self.allocated} bytes"
        return f"<Kind {self.name}: {state}>"


cdef class FileKind(Kind):
    """A kind in a file without a name, on the file system of a directory.

    Attributes
    ----------
    directory : str
        The directory; meant for DAX, but any file system works.
    max_size : int
        The most bytes it may take up; 0: as many as the file system has.
    """

    @property
    def capacity(self):
        """The most bytes it may take up; None: no limit."""
        return self.max_size or None

    def close(self):
        """Give the memory back. Closing again is harmless.

        Raises
        ------
        BufferError
            Arrays still live in it; nothing was closed.
        """
        if self.closed:
            return
        cdef int64_t live = rpmem_value(&self.heap.blocks)
        if live and not foreign(self.heap):
            raise BufferError(
                f"{self.name} cannot be closed: {live} array{'s' if live > 1 else ''} of "
                f"{self.allocated} bytes in all are still in it")
        destroy(self.heap)
        self.heap = NULL
        self.capsule = None

    def __enter__(self):
        self.check()
        return self

    def __exit__(self, *_):
        self.close()


def in_directory(str directory, uint64_t max_size):
    """Make a kind in a file on the file system of a directory; see `rpmem.memkind.pmem`."""
    cdef FileKind self = FileKind.__new__(FileKind)
    cdef memkind_t kind = NULL
    cdef bytes path = os.fsencode(directory)
    cdef const char *chars = path
    cdef int code, cause
    if 0 < max_size < MEMKIND_PMEM_MIN_SIZE:
        raise UsageError(
            f"{max_size} bytes are not enough for a kind of memory", where=directory,
            hint=f"Give it at least {MEMKIND_PMEM_MIN_SIZE} bytes (16 MiB), or no limit")
    with nogil:
        rpmem_forget_errno()
        code = memkind_create_pmem(chars, max_size, &kind)
        cause = errno
    if code:
        reason = os.strerror(cause) if cause else words_for(code)
        raise UsageError(
            f"no memory file can be created there: {reason}", where=directory,
            errno=cause or None)
    self.name = f"pmem:{directory}"
    self.directory = directory
    self.max_size = max_size
    heap_of(self, kind, True)
    return self


cdef Kind of_machine(str name):
    cdef Kind self = Kind.__new__(Kind)
    self.name = name
    heap_of(self, (<memkind_t *> address_of("libmemkind", b"MEMKIND_" + name.encode()))[0], False)
    return self


KINDS = {name: of_machine(name) for name in (
    "DEFAULT",
    "REGULAR",
    "INTERLEAVE",
    "HUGETLB",
    "HBW",
    "HBW_ALL",
    "HBW_PREFERRED",
    "HBW_INTERLEAVE",
    "HBW_HUGETLB",
    "HBW_ALL_HUGETLB",
    "HBW_PREFERRED_HUGETLB",
    "DAX_KMEM",
    "DAX_KMEM_ALL",
    "DAX_KMEM_PREFERRED",
    "DAX_KMEM_INTERLEAVE",
    "HIGHEST_CAPACITY",
    "HIGHEST_CAPACITY_PREFERRED",
    "HIGHEST_CAPACITY_LOCAL",
    "HIGHEST_CAPACITY_LOCAL_PREFERRED",
    "LOWEST_LATENCY_LOCAL",
    "LOWEST_LATENCY_LOCAL_PREFERRED",
    "HIGHEST_BANDWIDTH_LOCAL",
    "HIGHEST_BANDWIDTH_LOCAL_PREFERRED",
)}
