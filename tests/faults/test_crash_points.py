"""Changes of a pool's copies are cut off after any event; the next open understands what is there.

``python -m tests.support.crashpoints`` cuts at every point and prints them all; these are some.
Every control is something broken on purpose that the same cuts have to find.
"""

from __future__ import annotations

from contextlib import contextmanager

import pytest

from rpmem.base.pool_format import RECORD_OFFSET
from rpmem.epochs import change, codec
from rpmem.epochs.change import Change, Phase
from rpmem.epochs.members import Members
from rpmem.errors import RpmemError
from rpmem.pool.copies import Copies
from rpmem.pool.keepers import LocalKeeper
from rpmemd.records import Records
from tests.support.crashpoints import chains, cuts, deaths
from tests.support.crashpoints.cuts import Figures
from tests.support.crashpoints.operations import OPERATIONS
from tests.support.powercut import runs
from tests.support.powercut.model import Loss
from tests.support.seeds import first

pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.xdist_group("crash_points"),
]

SEED = first(1)
BY_NAME = {operation.name: operation for operation in OPERATIONS}


@pytest.mark.parametrize("name", BY_NAME)
def test_what_an_operation_leaves_wherever_it_is_cut_off_is_understood(tmpfs, name):
    figures = cuts.run(BY_NAME[name], SEED, one_in=100, medium=cuts.MEDIA[SEED % 2])
    assert figures.points.total() > 30
    assert figures.images > 1
    kinds = {kind for _, _, kind in figures.points}
    assert {"store", "flush"} <= kinds
    assert any(kind.startswith("done ") for kind in kinds)


@pytest.mark.parametrize("name", BY_NAME)
def test_a_target_that_dies_at_any_message_is_noticed(tmpfs, name):
    figures = Figures()
    deaths.run(BY_NAME[name], SEED, one_in=3, figures=figures)
    assert figures.points


def test_random_operations_that_are_cut_off_at_random_moments(tmpfs):
    assert chains.run(SEED, images=20).images > 10


@pytest.mark.slow
def test_every_crash_point_is_looked_at(tmpfs):
    for seed in range(SEED, SEED + 2):
        figures = cuts.run_all(seed)
        assert figures.points.total() > 900
        assert figures.images > 1000


# --- controls ----------------------------------------------------------------------------------


def in_order(*phases):
    """Return a `Change` that goes through its phases in another order."""

    def begin(self, *arguments):
        initialise(self, *arguments)
        self.phase = phases[0]
        self._left = whose(self, phases[0])
        while not self._left:
            self._advance()

    def advance(self):
        after = [*phases, Phase.BEGUN]
        self.phase = after[after.index(self.phase) + 1]
        if self.phase is not Phase.BEGUN:
            self._left = whose(self, self.phase)

    return {"__init__": begin, "_advance": advance}


def whose(self, phase):
    own = phase in (Phase.PREPARING_OWN, Phase.BEGINNING_OWN)
    return {self.own} if own else set(self.epoch.members) - {self.own}


initialise = Change.__init__

BEGUN_TOO_EARLY = in_order(
    Phase.PREPARING_OWN, Phase.BEGINNING_OWN, Phase.PREPARING, Phase.BEGINNING
)
OWN_COPY_LAST = in_order(Phase.PREPARING, Phase.PREPARING_OWN, Phase.BEGINNING, Phase.BEGINNING_OWN)


def admits_without_joining(self, other, *, discard):
    """Let it be overwritten under the record that it has."""
    if other.record is not None and other.record.mark is not change.Mark.BEGUN:
        other.write(change.marked(other.record, change.Mark.BEGUN))


def adopts_afterwards(self, other, *, discard):
    """Let a copy of the same epoch say nothing."""
    if other.record is None or other.record.epoch != self.epoch:
        admit(self, other, discard=discard)


def local_not_flushed(self, pieces):
    for offset, data in pieces:
        self._medium.store(RECORD_OFFSET + offset, data)


def remote_not_flushed(self, pieces):
    for offset, data in pieces:
        self._region.write(RECORD_OFFSET + offset, data)


def settled_first(record, sequence, *, pool_id):
    """Write the word that says that all is well before the slots."""
    image = codec.pack(record, sequence, pool_id=pool_id)
    yield 0, codec.pack_word(sequence, settled=True)
    for offset in codec.SLOT_OFFSETS:
        yield offset, image


@contextmanager
def not_drained(self):
    with self._lock:
        self.core.check_usable()
        try:
            self._run_dry("the replicas of the pool are being changed")
            yield
        finally:
            self.core = self._make(self.replicas)


admit = Members._admit

#: What is broken where, and which operation has to show it.
CONTROLS = {
    "begun before it is prepared everywhere": (Change, BEGUN_TOO_EARLY, "open, all equal"),
    "the own copy last": (Change, OWN_COPY_LAST, "open, all equal"),
    "not joining while it is overwritten": (
        Members,
        {"_admit": admits_without_joining},
        "open, one behind",
    ),
    "clean while it is overwritten": (
        Members,
        {"_admit": adopts_afterwards},
        "open, put back",
    ),
    "a record here that is not flushed": (LocalKeeper, {"_store": local_not_flushed}, "close"),
    "a record there that is not flushed": (
        Records,
        {"_store": remote_not_flushed},
        "open, one behind",
    ),
    "a record that is settled before it is there": (
        codec,
        {"changes": settled_first},
        "open, all equal",
    ),
    "left before all is drained": (Copies, {"_changing": not_drained}, "detach"),
}


def cut(operation, seed, one_in):
    return cuts.run(operation, seed, one_in=one_in, medium=cuts.MEDIA[seed % 2]).images


def test_a_medium_that_skips_flushes_is_found_out(tmpfs):
    with pytest.raises((Loss, RpmemError)):
        sum(chains.run(seed, skips=runs.lying(seed, 20)).images for seed in range(10))


@pytest.mark.parametrize("name", CONTROLS)
def test_a_control_is_found_out(tmpfs, monkeypatch, name):
    owner, broken, operation = CONTROLS[name]
    for function, replacement in broken.items():
        monkeypatch.setattr(owner, function, replacement)
    with pytest.raises((Loss, RpmemError)):
        sum(cut(BY_NAME[operation], seed, one_in) for one_in in (16, 4, 1) for seed in range(4))
