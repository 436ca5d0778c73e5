"""Replica: one connected remote copy of a pool, with librpmem's calls."""

from __future__ import annotations

import copy
import logging
import os
import sys
import threading
import warnings
from typing import Final

from rpmem._core import Replicator
from rpmem.base import interrupts
from rpmem.base.handles import Closing
from rpmem.base.steps import STEPS
from rpmem.base.target import Target
from rpmem.control.messages import DIGEST, Hello, Ready
from rpmem.engine.calls import Calls
from rpmem.engine.lanegroup import LaneGroup
from rpmem.epochs.record import CopyRecord
from rpmem.errors import (
    ClosedError,
    ConnectFailed,
    DeadlineExceeded,
    FabricError,
    ForkedError,
    ReplicaLost,
    RpmemError,
    UsageError,
)
from rpmem.files.attributes import PoolAttributes, require_attributes
from rpmem.memory.region import Region
from rpmem.session.channel import Channel
from rpmem.session.comparing import Answer, Asked, Besides, ask, both_digests
from rpmem.session.faults import broken, error_of
from rpmem.session.lanehosts import LaneHosts
from rpmem.session.lanes import Lanes
from rpmem.session.records import TargetRecord

log = logging.getLogger("rpmem")

#: What an acknowledgement may mean, the weakest first: nothing unknown is claimed.
LEVELS: Final = ("unknown", "visible", "persistent")
_MEDIA: Final = frozenset({"pmem", "page", "volatile"})
_CAUSE_WAIT_S = 1.0
# Seconds for rpmemd to end when the replica is no longer referenced.
_DROP_S = 1.0


class Replica(Closing, Calls):
    """One remote copy of a memory region.

    `rpmem.create` and `rpmem.open` make it, and end by calling `connect`. Offsets are pool
    offsets: byte 0 of the buffer is byte 0 of the pool, whose first 4096 bytes are its header
    (unless the pool has no attributes) and are never written by `persist`.

    Attributes
    ----------
    target : Target
        The machine that holds the replica.
    pool_set : str
        Its pool set there.
    nlanes : int
        Number of lanes granted: this many threads can persist at once.
    provider : str
        What carries them: ``"stream"``, ``"verbs"``, or one of libfabric's such as ``"tcp"``.
    choice : str
        Why that one.
    encryption : str
        Of the lanes: ``"TLS 1.3"``, or ``"none: "`` and the reason.
    attributes : PoolAttributes or None
        What the pool's header says; None for a pool without one.
    step : str
        How its bytes become durable: ``"send-after-write"``, ``"read-after-write"``,
        ``"commit"`` or ``"flush"``.
    medium : str
        What holds it: ``"pmem"``, ``"page"`` (page cache and msync), ``"volatile"``, or
        ``"unknown"`` if the target does not say, as with PMDK's rpmemd.
    boot : bytes or None
        Names the boot that the target's machine is in; None: not known.
    staged : bool
        Whether the fabric cannot access the pool on the target, as with files that an RDMA device
        must not pin: data then travels inside messages and is copied.
    level : str
        What an acknowledgement means, one of `LEVELS`: ``"unknown"`` (at least in the target's
        memory; its medium is unknown), ``"visible"`` (in the target's memory) or
        ``"persistent"`` (survives a power failure of the target as far as its medium does).

    Notes
    -----
    Every method may be called from several threads at once.
    """

    def __init__(
        self,
        target: Target,
        pool_set: str,
        region: Region,
        channel: Channel,
        *,
        timeout_s: float,
        owns_region: bool,
    ) -> None:
        self.target = target
        self.pool_set = pool_set
        self.nlanes = 0
        self.step = self.medium = self.provider = self.choice = self.encryption = ""
        self.zeroed = self.staged = False
        self.pool_size = 0
        self.attributes: PoolAttributes | None = None
        self.boot: bytes | None = None
        self._record = TargetRecord(channel, str(target))
        self._region = region
        self._owns_region = owns_region
        self._channel = channel
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._failure: RpmemError | None = None
        self._lanes: Lanes | None = None
        self._group: LaneGroup | None = None
        self._replicator: Replicator | None = None
        self._closed = False
        self._pid = os.getpid()

    # --- life cycle -----------------------------------------------------------------------

    def connect(
        self,
        ready: Ready,
        *,
        step: str,
        spin_s: float,
        native: bool,
        queue_size: int = 0,
        shared: object = None,
        lane_hosts: tuple[str, ...] = (),
    ) -> None:
        """Connect the granted lanes and choose the step; to be called once.

        Parameters
        ----------
        ready : Ready
            The target's answer.
        step : str
            The step asked for, or ``"auto"``.
        spin_s : float
            How long to poll before sleeping.
        native : bool
            Whether the in-band protocol is ours, or PMDK's.
        queue_size : int
            Operations a lane may have under way; 0 leaves it to the provider.
        shared : object, optional
            pyverbs objects of the user's own.
        lane_hosts : tuple of str
            Where the target may have its lanes, besides the host that was reached.
        """
        self.pool_size = ready.pool_size
        self.medium, self.staged = ready.medium, ready.staging > 0
        self.zeroed, self.boot = ready.zeroed, ready.boot
        if ready.attributes is not None:
            self.attributes = PoolAttributes.unpack(ready.attributes)
        self._record.take(ready, native=native)
        self._lanes = self._connected(
            ready,
            lane_hosts,
            native=native,
            answers=step not in STEPS or STEPS[step].answered,
            queue_size=queue_size,
            shared=shared,
        )
        self.step = self._lanes.choose(step, str(self.target))
        self.nlanes = len(self._lanes.lanes)
        self._group = self._lanes.group(self.step, self)
        self._raise_failure()
        self._replicator = Replicator(
            self._region,
            [self._group],
            local=False,
            floor=self.floor,
            size=self.pool_size,
            spin_s=spin_s,
            timeout_s=self._timeout_s,
        )
        self.through(self._replicator, register=self._lanes.register, first=self._record.first)

    def _connected(
        self,
        ready: Ready,
        lane_hosts: tuple[str, ...],
        *,
        native: bool,
        answers: bool,
        queue_size: int,
        shared: object,
    ) -> Lanes:
        """Connect the lanes; errors say where they occurred and give the known cause."""
        where: LaneHosts | None = None
        try:
            transport = self._channel.transport
            where = LaneHosts(ready, transport.peer_host, lane_hosts, transport.session_hosts)
            return Lanes(
                ready,
                where.hosts,
                self._region,
                timeout_s=self._timeout_s,
                native=native,
                answers=answers,
                queue_size=queue_size,
                shared=shared,
                check=self._may_wait,
                carrier=transport.carrier,
            )
        except (FabricError, DeadlineExceeded) as error:
            # The target may know more about a refusal and report it a moment later.
            refused = isinstance(error, ConnectFailed | DeadlineExceeded)
            cause = self._channel.await_failure(_CAUSE_WAIT_S) if refused else None
            if cause is not None:
                raise copy.copy(cause) from error
            if where is not None:
                where.explain(error)
            error.at(str(self.target))
            raise

    @property
    def floor(self) -> int:
        """Bytes at the start of the pool that `persist` refuses to touch."""
        return 0 if self.attributes is None else self._record.floor

    @property
    def level(self) -> str:
        """The guarantee for bytes that a call has made durable."""
        if self.medium not in _MEDIA:
            return "unknown"
        unproved = not STEPS[self.step].proved and self.provider in ("tcp", "sockets")
        return "visible" if self.medium == "volatile" or unproved else "persistent"

    @property
    def peer(self) -> Hello | None:
        """The description that rpmemd sent of itself: software, host, process id."""
        return self._channel.peer

    @property
    def failure(self) -> RpmemError | None:
        """Why the replica was lost, or None."""
        return self._failure

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    @property
    def group(self) -> LaneGroup:
        """The lanes, for a Replicator over several replicas (see `adopt`)."""
        if self._group is None:
            raise ClosedError("the replica is closed", where=str(self.target))
        return self._group

    def adopt(self, replicator: Replicator, index: int) -> None:
        """Leave persisting to a Replicator that serves several replicas at once.

        From now on, this object only reads, and opens and closes the session.
        """
        self._replicator = replicator
        assert self._lanes is not None
        self.through(
            replicator, index, lent=True, register=self._lanes.register, first=self._record.first
        )

    def close(self, remove: bool = False) -> None:
        """End the session.

        Parameters
        ----------
        remove : bool
            Remove the pool on the target, if this session created it.

        Notes
        -----
        Calls in progress in other threads end with ClosedError or ReplicaLost.

        Raises
        ------
        ForkedError
            The session belongs to the parent process, where it continues.
        """
        if self._is_forked():
            raise ForkedError(
                "the replica belongs to the parent process",
                where=str(self.target),
                hint="Open it again in this process",
            )
        interrupts.guarded(
            lambda: self._close(remove=remove),
            undo_s=interrupts.UNDO_S if remove else interrupts.FAREWELL_S,
        )

    def _close(self, *, remove: bool) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self.through(None)
        try:
            if self._replicator is not None:
                self._replicator.close("the replica is closed")
                self._quiesce(self._replicator)
            if self._failure is None or remove:
                self._channel.close(remove=remove)
        except BaseException:
            if remove:
                interrupts.left_behind(f"{self.target}: {self.pool_set}")
            raise
        finally:
            with interrupts.undoing():
                self.release()

    def _quiesce(self, replicator: Replicator) -> None:
        """Wait for calls in progress."""
        try:
            replicator.wait_for_calls(self._timeout_s)
        finally:
            if replicator.calls and self._group is not None:
                self._group.abort()
                with interrupts.undoing():
                    replicator.wait_for_calls()

    def release(self, *, undo: bool = False) -> None:
        """Release everything, which ends the session on the target.

        Parameters
        ----------
        undo : bool
            Ask the target, if it still responds, to remove a pool that this session created.
        """
        self._closed = True
        self.through(None)
        if undo:
            try:
                self._channel.close(remove=True)
            except RpmemError as error:
                log.warning("the newly created pool may have been left behind: %s", error)
                interrupts.left_behind(f"{self.target}: {self.pool_set}")
        self._channel.abandon()
        self._replicator = None
        if self._group is not None:
            self._group.close()
            self._group = None
        if self._lanes is not None:
            self._lanes.close()
            self._lanes = None
        if self._owns_region:
            self._region.close()

    def drop(self) -> None:
        """Release everything as at the end of the process, which ends the session on the target."""
        if self._channel.listens_here:
            # The garbage collector called this there, in the middle of something else.
            threading.Thread(target=self.drop, name="rpmem drop", daemon=True).start()
            return
        with interrupts.undoing(_DROP_S):
            self.release()

    def __del__(self) -> None:
        if getattr(self, "_closed", True) or self._is_forked() or sys.is_finalizing():
            return
        text = f"{self!r} was never closed"
        self.drop()
        warnings.warn(text, ResourceWarning, stacklevel=2)

    def _leave(self) -> None:
        if not self._is_forked():
            self.close()

    def _is_forked(self) -> bool:
        return os.getpid() != self._pid

    def __repr__(self) -> str:
        state = "closed" if self._closed else "lost" if self._failure else "open"
        return f"<Replica {self.pool_set!r} on {self.target} {state}>"

    def refusal(self, *, lent: bool) -> RpmemError:
        """Return the error for calls that are not possible here."""
        if self._closed or not lent:
            return ClosedError("the replica is closed", where=str(self.target))
        return UsageError(
            "this replica belongs to a pool", hint="persist through the pool, not the replica"
        )

    def set_attributes(self, attributes: PoolAttributes) -> None:
        """Replace the pool's attributes (rewrites its headers)."""
        require_attributes(attributes)

        def work() -> None:
            with self._lock:
                self._need_open()
                self._channel.set_attributes(attributes.pack())
                self.attributes = attributes

        interrupts.guarded(work)

    # --- the record of the copy, for rpmem.Pool -------------------------------------------

    @property
    def keeps_records(self) -> bool:
        """Whether the target itself keeps the record of its copy."""
        return self._record.kept

    @property
    def record(self) -> CopyRecord | None:
        """The record of the target's copy; None if there is none, or `record_damage` says why."""
        return self._record.record

    @property
    def record_damage(self) -> str | None:
        """Why the record that is there cannot be believed."""
        return self._record.damage

    def set_record(self, record: CopyRecord, *, discard: bool = False) -> None:
        """Replace the record of the target's copy; it is durable there when this returns.

        `discard`: a person named this copy to be overwritten, whatever it holds.

        Raises
        ------
        EpochRefused
            The copy holds what the record would hide; nothing was changed.
        ReplicaLost, DeadlineExceeded, FlushFailed
            It is not known which record the copy has.
        """
        with self._lock:
            self._need_open()
            self._raise_failure()
            self._record.set(record, discard=discard)

    def leave(self) -> None:
        """Mark the target's copy as left: it has everything acknowledged so far.

        Raises as `set_record` does; EpochRefused where it has no record, or is a mixture.
        """
        with self._lock:
            self._need_open()
            self._raise_failure()
            self._record.leave()

    @property
    def compares(self) -> bool:
        """Whether `digests` is possible."""
        return DIGEST in self._channel.features

    def digests(
        self, asked: Asked, key: bytes, besides: Besides, *, memory: Region | None = None
    ) -> tuple[bytes, bytes]:
        """Return digests of a range's units, of this copy (or another mapping) and the target's."""
        return both_digests(memory or self._region, self.digests_there, asked, key, besides)

    def digests_there(self, asked: Asked, key: bytes, besides: Besides, *, deep: bool) -> Answer:
        """Return digests of the target's copy, durable there, after something else meanwhile."""
        with self._lock:
            self._need_open()
            self._raise_failure()
            return ask(self._channel, asked, key, besides, deep=deep)

    def _need_open(self) -> None:
        if self._closed:
            raise ClosedError("the replica is closed", where=str(self.target))

    # --- trouble --------------------------------------------------------------------------

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise copy.copy(self._failure)

    def _may_wait(self) -> None:
        interrupts.check()
        self._raise_failure()

    def on_failure(self, error: RpmemError) -> None:
        """Record that the target no longer serves the lanes."""
        self._failure = copy.copy(error)  # a traceback would keep its callers' arrays alive
        if self._group is not None:
            self._group.abort()

    def give_up(self, why: str) -> None:
        """Treat the replica as lost from now on."""
        self.on_failure(ReplicaLost(why, where=str(self.target)))

    def explain(self, fault: int, refusal: int, detail: int) -> RpmemError:
        """Turn the fault that ended a lane into the error for the caller."""
        where = str(self.target)
        error = error_of(fault, refusal, detail, where=where, timeout_s=self._timeout_s)
        if error is None:
            # A lane notices a death before the control channel knows its cause.
            known = self._failure or self._channel.await_failure(_CAUSE_WAIT_S) or self._failure
            error = copy.copy(known) or broken(detail, where=where)
        if self._failure is None:
            self._failure = copy.copy(error)
        return error
