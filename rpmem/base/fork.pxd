"""Contents of fork: how an object knows that it was copied into a child by fork()."""


# What an object remembers of the process that it was made in.
cdef unsigned int fork_generation() noexcept nogil
# True of an object that belongs to a parent process.
cdef bint is_copy(unsigned int born) noexcept nogil
