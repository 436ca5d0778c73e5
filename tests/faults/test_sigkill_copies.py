"""SIGKILL of initiators and targets while copies come and go: none has less than it says."""

from __future__ import annotations

import pytest

from tests.support import copykills, seeds
from tests.support.powercut.model import Loss

SEED = seeds.first(40_000)


@pytest.mark.timeout(300)
def test_nothing_acknowledged_is_lost_and_what_is_same_is_equal(tmpfs, record_property):
    counts = copykills.run(tmpfs, SEED, 12)
    for name, count in counts.items():
        record_property(name, count)
    assert counts["kills"] >= 12
    assert counts["initiators"] > 2
    assert counts["acknowledged"] > 10


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_nothing_is_lost_for_longer(tmpfs):
    counts = copykills.run(tmpfs, SEED + 1, 600)
    for what in ("targets", "initiators", "restored", "split", "equal"):
        assert counts[what] > 2


@pytest.mark.timeout(300)
def test_more_than_was_acknowledged_is_not_there(tmpfs):
    """The control: a round more is claimed than was acknowledged."""
    with pytest.raises(Loss, match="has words of the rounds"):
        copykills.run(tmpfs, SEED, 40, lies=True)
