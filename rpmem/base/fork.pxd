"""Contents of fork: how an object knows that it was copied into a child by fork()."""


# Identifies the process that an object was made in.
cdef unsigned int fork_generation() noexcept nogil
# True for an object that belongs to a parent process.
cdef bint is_copy(unsigned int born) noexcept nogil
