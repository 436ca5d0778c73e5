"""SIGKILL of the initiator at 100 random moments: both survivors hold all that was acknowledged.

The survivors are its own file and the target's medium, which is a shadow medium: what the daemon
did not flush by itself is not there. A daemon that acknowledges too early cannot be found out by
this, as it goes on after the initiator's death; that is what killing the target is for.
"""

from __future__ import annotations

import pytest

from tests.support import faulty_rpmemd, seeds
from tests.support.sigkill import run_chains

KILLS = 100
CHAINS = 2
SEED = seeds.first(30_000)


def directories(tmpfs, count):
    made = [tmpfs / str(number) for number in range(count)]
    for directory in made:
        directory.mkdir()
    return made


@pytest.mark.timeout(400)
def test_nothing_acknowledged_is_lost(tmpfs, record_property):
    summaries = run_chains("initiator", directories(tmpfs, CHAINS), SEED, KILLS // CHAINS)
    for name in ("kills", "operations", "words", "flying"):
        record_property(name, sum(getattr(summary, name) for summary in summaries))
    assert sum(summary.kills for summary in summaries) == KILLS
    assert sum(summary.flying for summary in summaries) > KILLS
    assert sum(summary.operations for summary in summaries) > 5 * KILLS
    for summary in summaries:
        # A target whose initiator died lets go of the pool by itself.
        assert summary.slowest_unlock < 10.0


def test_a_broken_daemon_is_found_out(tmpfs):
    with pytest.raises(AssertionError, match="words are wrong"):
        run_chains("initiator", directories(tmpfs, 1), SEED, 20, faulty_rpmemd.SKIP_FLUSH)
