"""The contents of pyverbs objects: a user's protection domain and registered memory.

pyverbs does not expose its C objects, and their place in an object differs between versions. But
registered memory can be recognized: its keys, address and length are known. So each word of an MR
object is tried as a pointer until one leads to exactly that, and from there to the domain and the
device.

Imported only when such objects are passed in.
"""

import os

from libc.stdint cimport uintptr_t
from posix.unistd cimport read, write

from rpmem.fabric.verbs.ibv cimport ibv_mr
from rpmem.fabric.verbs.memory cimport Device

from rpmem.errors import MissingExtension, UsageError


cdef bint peek(int source, int sink, uintptr_t address, ibv_mr *out) noexcept:
    """Copy bytes at an address through a pipe: the kernel refuses if there is no such memory."""
    if write(sink, <const void *> address, sizeof(ibv_mr)) != sizeof(ibv_mr):
        return False
    return read(source, out, sizeof(ibv_mr)) == sizeof(ibv_mr)


cdef ibv_mr *inside(object memory) except NULL:
    """The C object inside a pyverbs MR."""
    cdef uintptr_t *words = <uintptr_t *> <void *> memory
    cdef ibv_mr found
    cdef int i, source, sink
    cdef int count = <int> (type(memory).__basicsize__ // sizeof(uintptr_t))
    source, sink = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        for i in range(2, count):
            if words[i] % sizeof(void *) or not peek(source, sink, words[i], &found):
                continue
            if (found.lkey == memory.lkey and found.rkey == memory.rkey
                    and found.length == memory.length
                    and <uintptr_t> found.addr == <uintptr_t> memory.buf):
                return <ibv_mr *> words[i]
    finally:
        os.close(source)
        os.close(sink)
    raise MissingExtension("rpmem does not know the objects of this version of pyverbs",
                           hint="let rpmem register memory itself")


class SharedDomain:
    """A user's own protection domain, with memory already registered there.

    Parameters
    ----------
    domain : pyverbs.pd.PD
        Lanes are made in it. It has to stay open until the replica is closed.
    memory : iterable of pyverbs.mr.MR
        Registered in the domain, also for local writing. A pool or read buffer that is inside one
        of them is not registered again.

    Raises
    ------
    UsageError
        The arguments are not such objects, or do not belong together.
    MissingExtension
        The C objects cannot be found in this version of pyverbs.
    """

    def __init__(self, domain, memory=()):
        cdef ibv_mr *found
        cdef Device device
        from pyverbs.enums import IBV_ACCESS_LOCAL_WRITE
        from pyverbs.mr import MR
        from pyverbs.pd import PD
        self._memory = list(memory)
        if not isinstance(domain, PD):
            raise UsageError(f"{type(domain).__name__} is not a pyverbs.pd.PD")
        for each in self._memory:
            if not isinstance(each, MR):
                raise UsageError(f"{type(each).__name__} is not a pyverbs.mr.MR")
        # Registered memory refers to its domain, and the domain to its device.
        sample = MR(domain, 4096, IBV_ACCESS_LOCAL_WRITE)
        try:
            found = inside(sample)
            self.domain = domain
            self.pointer = <size_t> found.pd
            device = Device.adopt(<size_t> found.context, domain)
            self.device = device
        finally:
            sample.close()
        # Read once: pyverbs crashes when a closed MR is asked.
        self._ranges = []
        for each in self._memory:
            found = inside(each)
            if <size_t> found.pd != self.pointer:
                raise UsageError("the memory is not registered in this protection domain",
                                 hint="pass the PD that the MR was made with")
            self._ranges.append((<size_t> found.addr, found.length, found.lkey))

    def key_of(self, address, length):
        """Return the local key of memory that contains a whole range, or None."""
        for start, size, key in self._ranges:
            if start <= address and address + length <= start + size:
                return key
        return None


def share(given):
    """Turn a user's argument into a SharedDomain.

    Parameters
    ----------
    given : SharedDomain, pyverbs.pd.PD, or tuple
        A tuple holds a PD and then MR objects.
    """
    if isinstance(given, SharedDomain):
        return given
    if isinstance(given, tuple):
        return SharedDomain(given[0], given[1:])
    return SharedDomain(given)
