"""SIGKILL of the target at 100 random moments: nothing acknowledged is missing on its medium."""

from __future__ import annotations

import pytest

from tests.support import faulty_rpmemd, seeds
from tests.support.sigkill import THREADS, run_chains

KILLS = 100
CHAINS = 2
SEED = seeds.first(20_000)


def directories(tmpfs, count):
    made = [tmpfs / str(number) for number in range(count)]
    for directory in made:
        directory.mkdir()
    return made


@pytest.mark.timeout(400)
def test_nothing_acknowledged_is_lost(tmpfs, record_property):
    summaries = run_chains("target", directories(tmpfs, CHAINS), SEED, KILLS // CHAINS)
    for name in ("kills", "operations", "words", "flying"):
        record_property(name, sum(getattr(summary, name) for summary in summaries))
    assert sum(summary.kills for summary in summaries) == KILLS
    # The kills came in the middle of something, and after something.
    assert sum(summary.flying for summary in summaries) > KILLS
    assert sum(summary.operations for summary in summaries) > 5 * KILLS
    for summary in summaries:
        # Everybody was told, with the cause.
        assert summary.errors == {"ReplicaLost": THREADS * summary.kills}
        assert summary.slowest_wake < 10.0


@pytest.mark.parametrize(
    ("breakage", "words"),
    [
        pytest.param(faulty_rpmemd.SKIP_FLUSH, "CatalogueCorrupt", id="skips-its-flush"),
        pytest.param(faulty_rpmemd.ANSWER_EARLY, "Loss", id="answers-early"),
    ],
)
def test_a_broken_daemon_is_found_out(tmpfs, breakage, words):
    with pytest.raises(AssertionError, match=words):
        run_chains("target", directories(tmpfs, 1), SEED, 20, breakage)
