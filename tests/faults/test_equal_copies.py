"""Kills, cuts of the network, flipped bits: copies stay equal, or it is known where not."""

from __future__ import annotations

from pathlib import Path

import pytest

from rpmem.pool.absent import Absent
from rpmem.pool.settling import Settling
from tests.support import equal_kills, seeds
from tests.support.powercut.model import Loss
from tests.support.without import is_built

SEED = seeds.first(140_000)
_PART = "rpmem.memory.changes.unit_digests"
if not is_built(_PART):
    pytest.skip(f"{_PART} is not built here", allow_module_level=True)


@pytest.mark.timeout(600)
def test_nothing_is_lost_and_what_differs_is_known(tmpfs: Path, tmp_path: Path, record_property):
    counts = equal_kills.run(tmpfs, tmp_path, SEED, 15)
    for name, count in counts.items():
        record_property(name, count)
    assert counts["moments"] >= 15
    assert counts["initiators"] > 1
    assert counts["acknowledged"] > 10


@pytest.mark.timeout(600)
def test_more_than_was_acknowledged_is_not_there(tmpfs: Path, tmp_path: Path):
    """The control: a round more is claimed than was acknowledged."""
    with pytest.raises(Loss, match="is of the rounds"):
        equal_kills.run(tmpfs, tmp_path, SEED, 40, lies=True)


@pytest.mark.slow
@pytest.mark.timeout(5400)
def test_nothing_is_lost_for_longer(tmpfs: Path, tmp_path: Path, record_property):
    counts = equal_kills.run(tmpfs, tmp_path, SEED + 1, 600)
    for name, count in counts.items():
        record_property(name, count)
    for what in ("targets", "initiators", "restored", "synced", "equal", "mapped"):
        assert counts[what] > 2, counts


@pytest.mark.slow
@pytest.mark.timeout(5400)
def test_a_map_that_forgets_is_noticed(tmpfs: Path, tmp_path: Path, monkeypatch):
    """A control: what calls make durable is not marked for copies that are away."""
    monkeypatch.setattr(Absent, "maps", [])
    with pytest.raises(Loss, match=r"in no map|differs in the pages"):
        equal_kills.run(tmpfs, tmp_path, SEED, 400)


@pytest.mark.slow
@pytest.mark.timeout(5400)
def test_a_pool_that_is_not_settled_is_noticed(tmpfs: Path, tmp_path: Path, monkeypatch):
    """A control: what was stored and never persisted stays as it is."""
    monkeypatch.setattr(Settling, "settle", lambda *_: None)
    with pytest.raises(Loss, match=r"differs in the pages|is of the rounds|was not found"):
        equal_kills.run(tmpfs, tmp_path, SEED, 400)
