"""The copies of an open pool: the local one, its replicas, and the core that serves them all.

Calls go straight to the current `Replicator`. When the set of replicas changes, the old replicator
is closed and its calls run to their end, a new one takes its place, and a call that met the closed
one is repeated on the new one by `Copies.again`: this costs the hot path nothing.
"""

from __future__ import annotations

import copy
import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rpmem._core import Replicator
from rpmem.base import environment, interrupts
from rpmem.base.fork import forks, has_children
from rpmem.base.handles import Handle
from rpmem.base.pool_format import POOL_FLOOR
from rpmem.base.target import ReplicaSpec
from rpmem.epochs.members import Members
from rpmem.epochs.record import Mark
from rpmem.errors import ClosedError, FlushFailed, ForkedError, RpmemError, UsageError
from rpmem.memory.changes.pageset import PageSet
from rpmem.pool import assembly, joining, maps
from rpmem.pool.absent import Absence
from rpmem.pool.assembly import Assembly
from rpmem.pool.keepers import LocalKeeper, ReplicaKeeper
from rpmem.pool.progress import Progress, quiet
from rpmem.pool.settling import Settling, Still, Told, held_still
from rpmem.session.options import SessionOptions
from rpmem.session.replica import Replica
from rpmem.session.start import DEFAULT_SPIN_US

log = logging.getLogger(__name__)

_CHANGING = "the replicas of the pool are being changed"
_CLOSED = "the pool is closed"


class Copies(Handle):
    """The local copy and the replicas of a pool, which may change while threads use it.

    Parameters
    ----------
    parts : Assembly
        Copies that are all equal.
    options : SessionOptions
        How replicas are reached.
    on_store : callable, optional
        ``on_store(offset, length)`` is called after a read that may have stored to the local copy.

    Attributes
    ----------
    core : Replicator
        The current one.
    absent : Absent
        The copies that are known and away.
    local : LocalCopy
        The local copy.
    layout : Layout
        The superblock of the local copy.
    members : Members
        The records of all copies.
    joins : int
        How often a replica was sent the pool to join.
    ended : bool
        Whether `end` was called.
    """

    def __init__(
        self,
        parts: Assembly,
        options: SessionOptions,
        on_store: Callable[[int, int], None] | None = None,
    ) -> None:
        self.local = parts.copy
        self.layout = parts.layout
        self.members = parts.members
        self.ended = False
        self._options = options
        self._forks = forks()
        self._lock = threading.Lock()
        self._unsettled: list[tuple[int, int]] = []
        self.absent = parts.absent
        self._doubtful: PageSet | None = None
        self._on_store = on_store
        self._sent: PageSet | None = None
        self._passing: PageSet | None = None
        self.joins = 0
        self.core = self._make(self.replicas)

    @property
    def replicas(self) -> list[Replica]:
        """The replicas that a call reaches, in order."""
        return [keeper.replica for keeper in self.members.others]

    def find(self, replica: int | Replica) -> tuple[int, Replica]:
        """Return index and replica; `UsageError` if it is not attached."""
        replicas = self.replicas
        try:
            if isinstance(replica, int):
                index = range(len(replicas))[replica]
            else:
                index = replicas.index(replica)
        except (IndexError, ValueError):
            raise UsageError(
                f"the pool has no replica {replica}", hint=f"It has {len(replicas)}"
            ) from None
        return index, replicas[index]

    # --- calls ----------------------------------------------------------------------------

    def call(self, verb: str, *arguments: Any, **keywords: Any) -> Any:
        """Call the current replicator."""
        try:
            return getattr(self.core, verb)(*arguments, **keywords)
        except ClosedError as error:
            return self.again(error, verb, *arguments, **keywords)

    def again(self, error: ClosedError, verb: str, *arguments: Any, **keywords: Any) -> Any:
        """Repeat a call that met a closed replicator; raise `error` if the pool is closed."""
        while True:
            if isinstance(error, ForkedError):
                raise error  # a thread of the parent may hold the lock below
            with self._lock:
                core, ended = self.core, self.ended
            if ended:
                raise ClosedError(_CLOSED, where=self.local.where) from None
            try:
                return getattr(core, verb)(*arguments, **keywords)
            except ClosedError as another:
                if core is self.core:
                    raise
                error = another

    def replicate(self, offset: int, length: int) -> None:
        """Return when a range is durable here and on every current replica."""
        self.replicate_many([(offset, length)])

    def replicate_many(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Return when ranges are durable here and on every current replica.

        The pool's own records must not differ between copies that count as equal: an interrupt
        waits briefly until they are everywhere; after that, the replicas are treated as lost.
        """
        try:
            with interrupts.finishing():
                if len(ranges) == 1:
                    self.call("persist", ranges[0])
                else:
                    self.call("persist_many", ranges)
        except Exception:
            raise
        except BaseException:
            for replica in self.replicas:
                replica.give_up("a change of the pool's own records was interrupted")
            # The local copy may have it, though no call ever began.
            self._unsettled += ranges
            self.absent.missed(ranges)
            raise

    def mark_sent(self, pages: PageSet) -> None:
        """Have calls mark in a set the pages that they send from the memory, before they do."""
        with self._lock:
            self._sent = pages
            self.core.mark_sent(pages)

    def mark_passing(self, pages: PageSet) -> None:
        """Have calls mark in a set the pages that they send, wherever they take the bytes from."""
        with self._lock:
            self._passing = pages
            self.core.mark_passing(pages)

    def unsettled(self) -> list[tuple[int, int]]:
        """Return the ranges of calls that were interrupted: copies may differ there."""
        with self._lock:
            self._unsettled += self.core.take_unsettled()
            return list(self._unsettled)

    def found(self) -> None:
        """Begin the first epoch, on new copies that hold a pool by now."""
        with interrupts.finishing():
            self.members.found()

    # --- attaching and detaching replicas -------------------------------------------------

    def detach(self, replica: int | Replica) -> None:
        """Continue without a replica, in a new epoch."""
        _, leaving = self.find(replica)
        try:
            with self._changing():
                self.find(leaving)  # another thread may have detached it meanwhile
                self._remove(leaving)
        finally:
            if leaving not in self.replicas:
                self._quietly(leaving.close)

    def _remove(self, leaving: Replica) -> None:
        """Let a replica go; all calls are blocked."""
        keeper = next(each for each in self.members.others if each.replica is leaving)
        with interrupts.finishing():
            if not _is_lost(leaving):
                self._quietly(keeper.leave)
            left = keeper.record is not None and keeper.record.mark is Mark.LEFT
            self._part(keeper)
            self.members.let_go(keeper, left=left)
            self._raise_losses()
            self.members.begin()
            self.absent.keep_to(self.members.epoch)

    def _part(self, keeper: ReplicaKeeper) -> None:
        """Take note of what a copy lacks that goes away; no call is in progress."""
        missed = self.absent.empty()
        boot = keeper.replica.boot
        self.absent.part(keeper.uuid, Absence(missed, self.members.epoch.stamp, boot=boot))
        # From here on, a change of the pool's own records that is interrupted marks it itself.
        for offset, length in self._unsettled:
            missed.add(offset, length)
        if self._doubtful is not None:
            missed.add_all(self._doubtful)
        if not any(_is_lost(each) for each in self.replicas if each is not keeper.replica):
            self._doubtful = None  # the others have all of it

    def _raise_losses(self) -> None:
        """Raise why one of the replicas is lost, if one is: no epoch can begin with it."""
        for replica in self.replicas:
            if replica.failure is not None:
                raise copy.copy(replica.failure)

    def attach(
        self, spec: ReplicaSpec, *, create: bool, discard: bool, progress: Progress = quiet
    ) -> Replica:
        """Connect one more replica, send it the pool, and continue with it in a new epoch."""
        keeper = assembly.connect_one(self.local, self.layout, spec, self._options, create=create)
        joining = keeper.replica
        try:
            with self._changing():
                self._raise_losses()
                self.joins += 1
                if create:
                    self.members.introduce(keeper)
                self._join(keeper, [spec] if discard else [], progress)
        except BaseException:
            with interrupts.undoing():
                assembly.dismiss(joining, remove=create)
            raise
        return joining

    def _join(
        self, keeper: ReplicaKeeper, discard: Sequence[ReplicaSpec], progress: Progress
    ) -> None:
        """Bring a copy up to date and begin an epoch with it; all calls are blocked."""
        before = self.members.mine
        try:
            joining.agree(
                self.members,
                [keeper],
                self.layout,
                self.absent,
                discard=discard,
                progress=progress,
            )
        except BaseException:
            if keeper in self.members.others:
                self.members.others.remove(keeper)
            if self.members.mine != before:
                # What was offered cannot be taken back: go on in a newer epoch, without that copy.
                with interrupts.undoing():
                    self._quietly(self.members.begin)
            raise

    def withdraw(self, joined: Replica, *, remove: bool) -> None:
        """Undo an `attach` whose result will not be returned."""
        with self._changing():
            if joined in self.replicas:
                self._remove(joined)
        assembly.dismiss(joined, remove=remove)

    def abandon(self, *, remove: bool) -> None:
        """Disconnect the replicas, and with `remove` remove what this session created there."""
        self.ended = True
        self.core.close(_CLOSED)
        for replica in self.replicas:
            assembly.dismiss(replica, remove=remove)

    def drop(self) -> None:
        """Release everything as at the end of the process; no copy is marked as complete."""
        self.ended = True
        self.core.close(_CLOSED)
        for replica in self.replicas:
            replica.drop()
        self.local.release()

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Block all calls while the list of replicas is changed."""
        with self._lock:
            self.core.check_usable()
            try:
                self._settle_calls(_CHANGING)
                yield
            finally:
                self.core = self._make(self.replicas)

    def _settle_calls(self, why: str) -> None:
        """Wait for all calls, and note what not every replica is known to have."""
        self._run_dry(why)
        try:
            # A drain of the new set visits its own lanes, which may be fewer. A copy that fails
            # now is lost, and every later call reports that.
            self._quietly(self.core.drain_rest)
        finally:
            self._unsettled += self.core.take_unsettled() + self.core.left_behind()

    # --- the end --------------------------------------------------------------------------

    @property
    def partings(self) -> int:
        """How many copies are away, or have to be given up because they are lost."""
        return len(self.absent) + sum(_is_lost(each) for each in self.replicas)

    def end(self, told: Told | None, room: Sequence[int] = ()) -> None:
        """Refuse further calls, wait for those in progress, mark and disconnect the replicas.

        Parameters
        ----------
        told : Told, optional
            Mark all copies as complete, once they are equal in what this tells of. A lost replica
            stays unmarked, and is sent what it has missed when it is opened again.
        room : sequence of int
            Offsets of room for maps of copies that are away; see `maps.length_for`.

        Raises
        ------
        FlushFailed
            The local medium refused, now or before: only the replicas are marked as complete, in an
            epoch of their own.
        """
        with self._lock:
            if self.ended:
                return
            try:
                self.ended = True
                # A copy that fails now will not be marked.
                self._settle_calls(_CLOSED)
                # An interrupted read may store here until its lanes are gone.
                for replica in filter(_is_lost, self.replicas):
                    self._quietly(replica.close)
                if told is not None:
                    with held_still(self.local, told) as still:
                        self._mark(still, room)
            finally:
                with interrupts.undoing():
                    for replica in self.replicas:
                        self._quietly(replica.close)

    def _has_children(self) -> bool:
        """Whether a forked child has the memory, too, and may store to it at any time."""
        if not has_children(self._forks):
            return False
        log.warning(
            "%s: a forked child may store to it (it will be compared when it is opened again)",
            self.local.where,
        )
        return True

    def _mark(self, still: Still | None, room: Sequence[int]) -> None:
        """Record on every complete copy that it is one, once they are equal."""
        # First: such a copy lacks what was acknowledged, and must not pass for one to go on with.
        # Nor may anything be sent from it, as the kernel may have dropped what it could not write.
        if self.local.region.refused:
            raise self._left_behind(self.local.region.refused)
        if still is None or self._has_children():
            return
        own = self.members.own
        if still.apart and isinstance(own, LocalKeeper):
            own.move(still.memory)
        try:
            for error in Members(own, self._settled(still, room)).finish():
                log.warning("%s (it is not marked as complete)", error)
        except RpmemError as error:
            if still.memory.refused:
                raise self._left_behind(still.memory.refused) from error
            log.warning("%s (it will be compared when it is opened again)", error)

    def _settled(self, still: Still, room: Sequence[int]) -> list[ReplicaKeeper]:
        """Make the copies equal, and return those replicas that are."""
        while True:
            intact = self._intact()
            replicas = [each.replica for each in intact]
            self._part_with_lost(still)
            last = self._make(replicas, here=not still.apart)
            try:
                with Settling(last, replicas, still) as settling:
                    # What an interrupted call left is on some copies and not on others.
                    settling.settle(self._unsettled)
                    settling.store(self._kept(replicas, room))
                last.drain()
            except RpmemError as error:
                if still.memory.refused or len(self._intact()) == len(intact):
                    raise
                log.warning("%s (it will be compared when it is opened again)", error)
            else:
                return intact
            finally:
                last.close(_CLOSED)

    def _part_with_lost(self, still: Still) -> None:
        """Take note of what copies lack that are lost, and of what nobody can tell."""
        for keeper in self.members.others:
            if _is_lost(keeper.replica) and keeper.uuid not in self.absent:
                self._part(keeper)
        # Replicas may have what was stored and not persisted: they are compared with memory.
        self.absent.missed(still.stored.untold.tolist())

    def _kept(self, replicas: Sequence[Replica], room: Sequence[int]) -> list[maps.Write]:
        """Return what has to be stored so that it is known later what copies have missed."""
        boots = {
            each.uuid: each.replica.boot
            for each in self.members.others
            if each.replica in replicas and each.replica.boot and not joining.keeps(each.replica)
        }
        if not (self.local.keeps_zeros and (boots or len(self.absent))):
            return []
        return maps.writes(self.absent, boots, self.members.epoch, self.layout, room)

    def _intact(self) -> list[ReplicaKeeper]:
        return [each for each in self.members.others if not _is_lost(each.replica)]

    def _left_behind(self, number: int) -> FlushFailed:
        """Let the replicas go on without a local copy that lost data; return the error to raise."""
        intact = self._intact()
        hint = "Check the device before the pool is opened again"
        if intact:
            try:
                alone = Members(intact[0], intact[1:])
                alone.begin()
                # Several may differ in what was not acknowledged, and memory cannot tell any more:
                # the kernel may have dropped from it what it could not write.
                if len(intact) == 1:
                    alone.finish()
            except RpmemError as error:
                log.warning("%s (it is not marked as complete)", error)
            names = " and ".join(each.named for each in intact if not _is_lost(each.replica))
            if names:
                hint = f"Move this copy away and use Pool.restore with {names}"
        return FlushFailed(
            f"the local medium refused ({os.strerror(number)}): the copy is not marked as complete",
            where=self.local.where,
            errno=number,
            hint=hint,
        )

    def _quietly(self, action: Callable[[], None]) -> None:
        """Do a last step as far as possible; errors were or will be reported elsewhere."""
        try:
            action()
        except RpmemError as error:
            log.info("%s", error)

    # --- the replicator -------------------------------------------------------------------

    def _run_dry(self, why: str) -> None:
        self.core.close(why)
        # Every call ends by itself, on completion or at its time-out.
        self.core.wait_for_calls()

    def _make(self, replicas: list[Replica], *, here: bool = True) -> Replicator:
        now = environment.current()
        core = Replicator(
            self.local.region,
            [replica.group for replica in replicas],
            local=here,
            floor=POOL_FLOOR,
            size=self.layout.pool_size,
            spin_s=(DEFAULT_SPIN_US if now.spin_us is None else now.spin_us) * 1e-6,
            timeout_s=environment.timeout_of(self._options.timeout),
            on_store=self._on_store,
        )
        if self._sent is not None:
            core.mark_sent(self._sent)
        if replicas:
            if self._doubtful is None:
                self._doubtful = self.absent.empty()
            core.mark_doubtful(self._doubtful)
        core.mark_absent(self.absent.maps)
        if self._passing is not None:
            core.mark_passing(self._passing)
        for index, replica in enumerate(replicas):
            replica.adopt(core, index)
        return core


def _is_lost(replica: Replica) -> bool:
    """Whether a replica has failed, on its control channel or on its lanes."""
    return replica.failure is not None or replica.closed or replica.group.failed
