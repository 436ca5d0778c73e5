# cython: language_level=3
"""How things move in the world of the fake fabric, as time goes by."""

from libc.stdint cimport uint32_t, uint64_t

from tests.support._fake_world cimport conn_t, ring_t, world_t


# Something that the initiator will find, in the order of its kind.
cdef void send_back(conn_t *conn, ring_t *ring, uint32_t kind, const char *place, uint64_t length,
                    bint copied) noexcept nogil
# Some time goes by; whatever is due happens, the lanes in any order.
cdef void turn(world_t *world) noexcept nogil
