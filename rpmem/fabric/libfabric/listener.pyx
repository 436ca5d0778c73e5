"""The listener for lanes over libfabric: fi_passive_ep(3), perhaps behind a door."""

import errno
import os
import time

from libc.stdint cimport uint8_t

from rpmem.base.fork cimport fork_generation, is_copy
from rpmem.base.remedies import remedy_for
from rpmem.errors import ConnectFailed
from rpmem.fabric.libfabric.caller import HANDING_OVER, Caller
from rpmem.fabric.libfabric.failures cimport lacks_descriptors, must
from rpmem.fabric.libfabric.fi cimport *
from rpmem.fabric.shared.addresses import address_of
from rpmem.fabric.shared.door import Door

bind_libfabric()

# Providers whose listener keeps the connections of strangers: it is put behind a door.
GUARDED = frozenset({"tcp"})
# Seconds for libfabric to notice a connection from this process.
_HANDOVER = 5.0
# Longest single wait for accepted lanes to be connected.
_NO_TIME = 0.001


cdef class Listener(Acceptor):
    """A passive endpoint on the fabric's address, at a port chosen by the system.

    Parameters
    ----------
    fabric : Fabric
    lanes : int
        How many lanes are expected.
    guarded : bool
        Let connections wait outside if the provider needs that (`rpmem.fabric.libfabric.caller`).
    """

    def __cinit__(self, Fabric fabric not None, *, int lanes=0, bint guarded=True):
        cdef uint8_t name[128]
        cdef size_t length = sizeof(name)
        self.born = fork_generation()
        self.fabric = fabric
        where = fabric.provider
        if guarded and where in GUARDED:
            self.inner = Fabric(where, some_loopback(), listen=True)
            self.door = Door(fabric.host, Caller, lanes, HANDING_OVER if lanes else 0)
            self.port = self.door.port
            return
        must(fi_passive_ep(fabric.fabric, fabric.info, &self.endpoint, NULL),
             "fi_passive_ep", where)
        must(fi_pep_bind(self.endpoint, &fabric.events.fid, 0), "fi_pep_bind", where)
        must(fi_listen(self.endpoint), "fi_listen", where, ConnectFailed)
        must(fi_getname(&self.endpoint.fid, name, &length), "fi_getname", where)
        self.port = address_of((<const char *> name)[:length])[1]

    def __dealloc__(self):
        self.close()

    def next(self, double timeout, dict lanes):
        """As `Acceptor.next`; requests come from the door if there is one."""
        cdef Request request
        if self.door is not None:
            request = self.next_at_door(0.0 if lanes else timeout)
            if request is not None or not lanes:
                return request
            timeout = min(timeout, _NO_TIME)
        event = Acceptor.next(self, timeout, lanes)
        if isinstance(event, Request):
            request = event
            request.listener = self
        return event

    cdef Request next_at_door(self, double timeout_s):
        cdef Request request
        visitor = self.door.next(timeout_s)
        if visitor is None:
            return None
        request = Request.__new__(Request)
        request.listener = self
        request.visitor = visitor
        request.data = visitor.data
        request.peer = visitor.peer
        return request

    def _take_over(self, Request request):
        """Make libfabric accept a connection that has waited at the door."""
        cdef Request accepted
        self.door.begin_to_hand_over()
        # For this connection alone: a listener this short-lived cannot be found by others.
        behind = Listener(self.inner, guarded=False)
        request.behind = behind
        with request.visitor.inside(self.inner.host, behind.port) as (peer, guess):
            accepted = (<Listener> behind).await_request(peer)
            request.visitor.replace(peer, guess)
        request.visitor = None
        request.info, accepted.info = accepted.info, NULL

    def _took_over(self, Request request):
        """The lane exists: release what was needed to accept it."""
        request.behind.close()
        request.behind = None
        self.door.end_handing_over()

    def _turn_down(self, Request request):
        """Refuse a connection that libfabric has accepted."""
        cdef int rc = fi_reject(self.endpoint, request.info.handle, NULL, 0)
        fi_freeinfo(request.info)
        request.info = NULL
        must(rc, "fi_reject", self.fabric.provider)

    cdef Request await_request(self, tuple peer):
        """Wait for the request of a known peer, and reject all others."""
        deadline = time.monotonic() + _HANDOVER
        while True:
            left = deadline - time.monotonic()
            event = self.next(max(left, 0.0), {})
            if isinstance(event, Request):
                if event.peer == peer:
                    return event
                event.reject()
            elif left <= 0:
                number = errno.EMFILE if lacks_descriptors() else None
                raise ConnectFailed("libfabric did not accept a lane of this process",
                                    where=self.fabric.provider, errno=number,
                                    hint=remedy_for(number))

    cpdef close(self):
        """Stop listening; established lanes stay."""
        if is_copy(self.born):
            self.endpoint = NULL
        if self.door is not None:
            self.door.close()
            self.door = None
        if self.inner is not None:
            self.inner.close()
            self.inner = None
        if self.endpoint != NULL:
            fi_close(&self.endpoint.fid)
            self.endpoint = NULL


def some_loopback():
    """An address of this machine that others can neither reach nor guess."""
    return "127." + ".".join(str(1 + byte % 254) for byte in os.urandom(3))
