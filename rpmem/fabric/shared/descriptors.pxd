# cython: language_level=3
"""Waiting for a file descriptor, without the GIL or the heap."""

cdef enum:
    LONGEST_MS = 600000           # the longest wait, whatever is asked for


cdef extern from "<poll.h>" nogil:
    enum: POLLIN
    struct pollfd:
        int fd
        short events
        short revents
    int c_poll "poll"(pollfd *descriptors, unsigned long count, int timeout)


cdef inline pollfd watched(int descriptor) noexcept nogil:
    cdef pollfd entry
    entry.fd = descriptor
    entry.events = POLLIN
    entry.revents = 0
    return entry


cdef inline int milliseconds(double seconds) noexcept nogil:
    return max(0, min(<int> (seconds * 1000), <int> LONGEST_MS))


cdef inline bint readable(int descriptor, int milliseconds) noexcept nogil:
    """Whether there is something to read, now or within the given time."""
    cdef pollfd entry = watched(descriptor)
    return c_poll(&entry, 1, milliseconds) > 0
