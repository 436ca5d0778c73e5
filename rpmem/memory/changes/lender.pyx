"""Bytes of a region that calls take from another place, which no store to the region changes."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uint64_t

from rpmem.base.handles import refuse_copy
from rpmem.errors import BufferRefused


cdef class Lender:
    """Bytes of a region that calls take from another place.

    Parameters
    ----------
    place : buffer
        Contiguous; kept alive.
    offset : int
        The offset in the region that its first byte stands for.
    """

    def __cinit__(self, place, uint64_t offset, *_):
        try:
            PyObject_GetBuffer(place, &self.view, PyBUF_SIMPLE)
        except (BufferError, TypeError, ValueError) as error:
            raise BufferRefused(
                f"bytes are lent from a contiguous buffer: {error}") from error
        self.has_view = True
        self.offset = offset

    def __dealloc__(self):
        if self.has_view:
            PyBuffer_Release(&self.view)

    def __reduce__(self):
        refuse_copy(self, "It belongs to one call.")

    def __len__(self):
        return self.view.len

    def copy(self):
        """Put the bytes there now; calls that send them do it themselves."""
        with nogil:
            self.fill()

    cdef void fill(self) noexcept nogil:
        pass
