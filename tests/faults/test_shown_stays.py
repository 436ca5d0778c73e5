"""SIGKILL of a program at any moment: what an opened pool has shown stays, from whichever copy."""

from __future__ import annotations

import pytest

from tests.support import seeds, shown_kills
from tests.support.powercut.model import Loss

SEED = seeds.first(52_000)


@pytest.mark.timeout(600)
def test_what_was_shown_is_never_gone(tmpfs, record_property):
    counts = shown_kills.run(tmpfs, SEED, 100)
    record_property("kills", counts["kills"])
    for what in ("opening", "using", "ending", "ended", "restored", "clean together"):
        assert counts[what] > 2, what


@pytest.mark.slow
@pytest.mark.timeout(4000)
def test_what_was_shown_is_never_gone_for_longer(tmpfs, record_property):
    counts = shown_kills.run(tmpfs, SEED + 1, 1000)
    for name, count in counts.items():
        record_property(name, count)
    assert counts["restored after an end"] > 20


@pytest.mark.timeout(600)
def test_copies_that_are_marked_as_they_are(tmpfs):
    """The control: nothing is settled before copies are marked."""
    with pytest.raises(Loss, match=r"clean in one epoch differ|something shown is gone"):
        shown_kills.run(tmpfs, SEED, 60, broken=shown_kills.unsettled)
