"""A pool with two replicas on three machines, and which words each of them may have when."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import rpmem
from rpmem.base.values import replace
from rpmem.control.initiator import InitiatorSession
from rpmem.epochs import change
from rpmem.epochs.record import Mark
from rpmemd.session import Session
from tests.support.powercut.model import Loss
from tests.support.powercut.recorder import Recorder

HERE, ONE, TWO, NEW = "here", "one", "two", "new"
#: The local copy, the replicas, and where a pool is restored.
MACHINES = (HERE, ONE, TWO, NEW)
REPLICAS = (ONE, TWO)
SIZE = 2 << 20
# With other steps a fabric flushes the target's memory, past everything that could be recorded.
SESSION: Any = {"nlanes": 1, "step": "send-after-write"}
#: Parts of each replica: the second one has several.
PARTS = {ONE: 1, TWO: 2}
WORDS = 600
KEPT, FLUSHED, LOOSE = NAMES = ("kept", "flushed", "loose")

#: The rounds in which the words of each array may have been stored; None: there may be no pool.
Rounds = dict[str, frozenset[int]] | None


def words_of(number: int) -> NDArray[np.uint64]:
    """Return what is stored in a round."""
    return np.arange(WORDS, dtype=np.uint64) + np.uint64(number << 32)


def set_of(root: str, machine: str) -> str:
    """Return the path of a copy."""
    return os.path.join(root, machine, "r.set" if machine in REPLICAS else "a.pool")


def spec_of(root: str, replica: str) -> str:
    """Return what names a replica."""
    return f"local:{os.path.join(root, replica)} r.set"


@dataclass
class Moment:
    """What may be on each machine while something is in flight, and after it has come back.

    Parameters
    ----------
    what : str
    begin, end : int
        Events before it, and when it was over.
    before, after : dict
        For each machine the rounds that it may have.
    """

    what: str
    begin: int
    end: int
    before: dict[str, Rounds]
    after: dict[str, Rounds]

    def may(self, machine: str, position: int) -> list[Rounds]:
        """Return what a machine may have after a cut at a position."""
        if position >= self.end:
            return [self.after[machine]]
        return [self.before[machine], self.after[machine]]


class World:
    """Three machines; what happens is noted with what it promises.

    Parameters
    ----------
    root : str
        Has a folder for each machine.
    recorder : Recorder, optional
        Active.

    Attributes
    ----------
    pool : Pool or None
        That is open.
    attached : list of str
        Its replicas, in order.
    may : dict
        What each machine has, when nothing is in flight.
    moment : Moment
        The last operation.
    moments : list of (Moment, str)
        All that came back, and the machine of the local copy after each.
    """

    def __init__(self, root: str, recorder: Recorder | None = None) -> None:
        self.root = root
        self.recorder = recorder
        self.pool: rpmem.Pool | None = None
        self.here = HERE
        self.attached: list[str] = []
        self.may: dict[str, Rounds] = dict.fromkeys(MACHINES)
        self.moment = Moment("", 0, 0, self.may, self.may)
        self.moments: list[tuple[Moment, str]] = []
        self._round = 0
        self._flushing = False
        self._views: dict[str, NDArray[np.uint64]] = {}

    def spec(self, replica: str) -> str:
        """Return what names a replica."""
        return spec_of(self.root, replica)

    @property
    def path(self) -> str:
        """The local copy."""
        return set_of(self.root, self.here)

    @contextmanager
    def step(self, what: str) -> Iterator[dict[str, Rounds]]:
        """Note an operation; what is promised afterwards is changed in what this yields."""
        before, after = dict(self.may), dict(self.may)
        begin = len(self.recorder.events) if self.recorder else 0
        # If it fails, it has never come back.
        self.moment = Moment(what, begin, sys.maxsize, before, after)
        yield after
        end = self.recorder.mark(what) if self.recorder else 0
        self.moment = Moment(what, begin, end, before, after)
        self.moments.append((self.moment, self.here))
        self.may = after

    def _hold(self, pool: rpmem.Pool, replicas: list[str]) -> None:
        self.pool, self.attached = pool, replicas
        self._views = {name: pool[name] for name in pool.names()}

    # --- operations -----------------------------------------------------------------------

    def create(self, *replicas: str) -> None:
        """Make an empty pool."""
        with self.step("create") as after:
            after.update({machine: {} for machine in (HERE, *replicas)})
            self._hold(create(self.root, *replicas), list(replicas))

    def open(self, *replicas: str, discard: tuple[str, ...] = ()) -> None:
        """Open the pool with some of its replicas."""
        with self.step("open") as after:
            for each in replicas:
                # What was never persisted may differ where nothing had to be sent.
                after[each] = _either(self.may[self.here], self.may[each])
                if self.may[each] is None or discard:
                    after[each] = self.may[self.here]
            pool = rpmem.Pool.open(
                self.path,
                [self.spec(each) for each in replicas],
                discard=[self.spec(each) for each in discard],
                **SESSION,
            )
            self._hold(pool, list(replicas))

    def restore(self, replica: str) -> None:
        """Make a new local copy out of a replica, on a machine of its own."""
        with self.step("restore") as after:
            self.here = NEW
            after[NEW] = self.may[replica]
            lost = [self.spec(each) for each in REPLICAS if each != replica]
            pool = rpmem.Pool.restore(self.path, self.spec(replica), lost=lost, **SESSION)
            self._hold(pool, [replica])

    def close(self) -> None:
        """Close the pool."""
        assert self.pool is not None
        with self.step("close") as after:
            self._drained(after)
            self._views.clear()
            self.pool.close()
        self.pool, self.attached = None, []

    def detach(self, replica: str) -> None:
        """Go on without a replica."""
        assert self.pool is not None
        with self.step("detach") as after:
            index = self.attached.index(replica)
            lost = self.pool.replicas[index].failure is not None
            if not lost:
                self._drained(after)
            self.attached.remove(replica)
            if lost:
                self._drained(after)
            self.pool.detach(index)

    def attach(self, replica: str, *, create: bool = False, discard: bool = False) -> None:
        """Bring in a replica."""
        assert self.pool is not None
        with self.step("attach") as after:
            self._drained(after)
            after[replica] = after[self.here]
            parts = PARTS[replica] if create else 0
            self.pool.attach(self.spec(replica), create=create, parts=parts, discard=discard)
            self.attached.append(replica)

    def arrays(self) -> None:
        """Make the arrays."""
        assert self.pool is not None
        for name in NAMES:
            with self.step("array") as after:
                self._views[name] = self.pool.array(name, WORDS, "u8")
                self._all_of(after, name, frozenset((0,)))
        for name in NAMES:
            self.persist(name)

    # --- words ------------------------------------------------------------------------------

    def persist(self, name: str = KEPT) -> None:
        """Store a new round, and make it durable everywhere."""
        assert self.pool is not None
        self._store(name)
        with self.step("persist") as after:
            self.pool.persist(self._views[name])
            self._all_of(after, name, frozenset((self._round,)))

    def flush(self) -> None:
        """Store a new round, and flush it; nothing waits for it."""
        assert self.pool is not None
        self._store(FLUSHED)
        self.pool.flush(self._views[FLUSHED])
        self._flushing = True

    def leave_loose(self) -> None:
        """Store a new round which nobody ever persists."""
        self._store(LOOSE)

    def _store(self, name: str) -> None:
        self._round += 1
        with self.step("store") as after:
            self._views[name][:] = words_of(self._round)
            for machine in (self.here, *self.attached):
                found = after[machine]
                assert found is not None
                after[machine] = {**found, name: found.get(name, frozenset()) | {self._round}}

    def _all_of(self, after: dict[str, Rounds], name: str, rounds: frozenset[int]) -> None:
        for machine in (self.here, *self.attached):
            found = after[machine]
            assert found is not None
            after[machine] = {**found, name: rounds}

    def _drained(self, after: dict[str, Rounds]) -> None:
        """What was flushed is durable now."""
        mine = after[self.here]
        if self._flushing and mine and FLUSHED in mine:
            self._flushing = False
            self._all_of(after, FLUSHED, frozenset((max(mine[FLUSHED]),)))

    # --- deaths -----------------------------------------------------------------------------

    def leave(self, replica: str) -> None:
        """A replica records that it leaves in order, and the rest of a detach is cut off."""
        assert self.pool is not None
        self.pool.replicas[self.attached.index(replica)].leave()

    def die(self, *, clean: tuple[str, ...] = ()) -> None:
        """The initiator dies; some replicas are marked as clean by hand."""
        assert self.pool is not None
        if clean:
            self._store(KEPT)
        self._flushing = False
        with self.step("die"):
            for each in clean:
                replica = self.pool.replicas[self.attached.index(each)]
                assert replica.record is not None
                replica.set_record(change.marked(replica.record, Mark.CLEAN))
            self._views.clear()
            transports = [each._channel.transport for each in self.pool.replicas]
            for each in transports:
                each.kill()
            self.pool._copies.drop()
            for each in transports:
                assert each.exit_status(20) is not None
        self.pool, self.attached = None, []

    def kill(self, replica: str) -> None:
        """A target dies, and the initiator notices."""
        assert self.pool is not None
        dying = self.pool.replicas[self.attached.index(replica)]
        with self.step("kill"):
            dying._channel.transport.kill()
            until(lambda: dying.failure is not None)

    def abandon(self) -> None:
        """Let go of everything, whatever state it is in."""
        self._views.clear()
        if self.pool is not None:
            self.pool.close()
            self.pool = None


def until(met: Callable[[], bool], timeout_s: float = 20.0) -> None:
    """Return when a condition is met."""
    deadline = time.monotonic() + timeout_s
    while not met():
        if time.monotonic() > deadline:
            raise TimeoutError("it never came to that")
        time.sleep(0.001)


def create(root: str, *replicas: str) -> rpmem.Pool:
    """Create a pool with all its copies."""
    specs = [
        replace(rpmem.ReplicaSpec.parse(spec_of(root, each)), parts=PARTS[each])
        for each in replicas
    ]
    return rpmem.Pool.create(set_of(root, HERE), SIZE, specs, **SESSION)


def _either(one: Rounds, other: Rounds) -> Rounds:
    if one is None or other is None:
        return one
    return {name: found | other.get(name, frozenset()) for name, found in one.items()}


def check_rounds(options: list[Rounds], found: dict[str, Any], where: str) -> None:
    """Compare the arrays of a pool with what may be there; raise `Loss`."""
    possible = [option for option in options if option is not None]
    if not any(_holds(option, found) for option in possible):
        seen = {name: sorted({int(word) >> 32 for word in words}) for name, words in found.items()}
        raise Loss(f"{where}: it has words of the rounds {seen}, and that is none of {possible}")


def _holds(option: dict[str, frozenset[int]], found: dict[str, Any]) -> bool:
    """Whether every word is of one of the rounds that it may be of."""
    if set(found) != set(option):
        return False
    for name, words in found.items():
        right = np.zeros(WORDS, bool)
        for number in option[name]:
            right |= words == (words_of(number) if number else np.zeros(WORDS, np.uint64))
        if not right.all():
            return False
    return True


# --- messages -----------------------------------------------------------------------------------

Noted = Callable[[str, str, str], None]


@contextmanager
def messages(root: str, note: Noted) -> Iterator[None]:
    """Call ``note(machine, "sent" or "met" or "done", what)`` for every control message."""
    send, carry_out = InitiatorSession._send_request, Session._carry_out

    def machine_of(folder: str) -> str:
        return os.path.relpath(folder, root)

    def sent(session: InitiatorSession, request: Any) -> Any:
        note(machine_of(session._where.removeprefix("local:")), "sent", type(request).__name__)
        return send(session, request)

    def carried_out(session: Session, event: Any) -> None:
        machine = machine_of(str(session._config.poolset_dir))
        what = type(event).__name__
        note(machine, "met", what)
        carry_out(session, event)
        note(machine, "done", what)

    InitiatorSession._send_request = sent  # type: ignore[method-assign]
    Session._carry_out = carried_out  # type: ignore[method-assign]
    try:
        yield
    finally:
        InitiatorSession._send_request = send  # type: ignore[method-assign]
        Session._carry_out = carry_out  # type: ignore[method-assign]
