"""How lanes are connected, on either side: event by event, each within a time limit.

Each fabric implements `turn`: it takes one event, records it in the lane that it is about, and
returns that lane.
"""

import time

cimport cython

from rpmem.errors import DeadlineExceeded, ProviderUnavailable
from rpmem.fabric.shared.lane cimport ConnectedLane

# Seconds between two calls of `check`, which may end the wait.
_SLICE_S = 0.05


@cython.no_gc_clear  # a lane that is dropped removes itself from its list
cdef class Connector:
    """The base of the fabrics' Fabric."""

    cdef object turn(self, double timeout_s):
        raise NotImplementedError

    @property
    def encrypts(self):
        """False: what travels on its lanes can be read by others."""
        return False

    def secure(self, bytes nonce, object proofs):
        """Encrypt all lanes that are made from now on."""
        raise ProviderUnavailable(f"lanes over {self.provider} cannot be encrypted")

    def await_lanes(self, list lanes, double timeout, object check=None):
        """Wait until every lane of `lanes` is connected.

        `check` is called now and then, and may raise to end the wait.

        Raises
        ------
        ConnectFailed
            The target refused a lane, or hung up.
        DeadlineExceeded
            The target did not answer within `timeout` seconds.
        """
        cdef ConnectedLane lane
        deadline = time.monotonic() + timeout
        while True:
            waiting = 0
            for lane in lanes:
                if lane.problem is not None:
                    raise lane.problem
                if not lane.connected:
                    waiting += 1
            if not waiting:
                return
            if self.problem is not None:
                raise self.problem
            if check is not None:
                check()
            left = deadline - time.monotonic()
            if left <= 0:
                raise DeadlineExceeded(
                    f"{waiting} of {len(lanes)} lanes were not accepted by {self.host}, "
                    f"port {self.port}, in {timeout:g} s", hint=self.unanswered)
            self.turn(min(left, _SLICE_S))


cdef class Acceptor:
    """The base of the fabrics' Listener."""

    def next(self, double timeout, dict lanes):
        """Wait for the next event: a Request, a lane of `lanes` that is connected, or None.

        Parameters
        ----------
        timeout : float
            Seconds.
        lanes : dict
            ``lane.key`` to lane, for lanes accepted and not yet connected; the one that is reported
            (or has failed) is removed.
        """
        cdef ConnectedLane lane
        event = self.fabric.turn(timeout)
        if not isinstance(event, ConnectedLane):
            return event
        lane = event
        if lane.connected or lane.problem is not None:
            lanes.pop(lane.key, None)
        return lane if lane.connected else None

    cpdef close(self):
        """Stop listening; established lanes stay."""
