"""Sessions over a fabric in this process, drawn from seeds: what is acknowledged is durable.

`make nightly PART=simulation` runs 100,000 of them. A seed that fails here fails everywhere:
``python -m tests.support.simulation --seed N``.
"""

from __future__ import annotations

from collections import Counter

import pytest

from rpmem.fabric import contract
from rpmem.wire import lane
from tests.support import simulation
from tests.support.compiled import compiled

_SEEDS = 400
#: Failed once: a flush that was not drained brought back bytes that a later, one-sided flush had
#: replaced, which no cache does.
_ONCE_RED = (934708223632,)
#: Until a model notices a broken promise.
_SOON = 400

_OBJECTS = ("Domain", "Fabric", "Lane", "Listener", "Memory", "Queue", "Request")


@pytest.fixture(scope="module")
def counts() -> Counter[str]:
    """What happened in all of the sessions."""
    total: Counter[str] = Counter()
    failed = []
    for seed in (*range(_SEEDS), *_ONCE_RED):
        try:
            total += simulation.run(seed)
        except simulation.Broken as error:
            failed.append(f"{seed}: {error}")
    assert not failed
    return total


def test_nothing_acknowledged_is_lost_and_every_loss_is_said(counts):
    assert counts["calls"] > 10 * _SEEDS


def test_bytes_were_sent_from_another_place(counts):
    assert counts["lent"] > _SEEDS / 10


def test_everything_that_can_go_wrong_has_gone_wrong(counts):
    for fault in range(1, simulation.fake.FAULTS):
        assert counts[f"went wrong {fault}"], fault


@pytest.mark.parametrize("name", ["LOST", "REFUSED", "GARBLED", "EXPIRED", "INTERRUPTED"])
def test_lanes_have_ended_in_every_way(counts, name):
    assert counts[f"lane {getattr(lane, f'LANE_{name}')}"]


def test_reads_were_given_up_while_they_were_under_way(counts):
    """Whose memory is kept until nothing can write to it any longer: see `Session._is_kept`."""
    assert counts["reads given up"]


def test_calls_were_told_that_others_had_found_out(counts):
    assert counts["told again"]
    assert not counts[f"fault {lane.LANE_ABORTED}"], "not with the cause"
    assert counts["interrupted"]


@pytest.mark.parametrize("seed", range(20))
def test_a_seed_means_the_same_each_time(seed):
    assert simulation.run(seed) == simulation.run(seed)


@pytest.mark.parametrize("breach", simulation.BREACHES)
def test_a_broken_promise_is_noticed(breach):
    """Each is a mistake of a step, of the service, or of a device."""
    for seed in range(_SOON):
        try:
            simulation.run(seed, breach)
        except simulation.Broken as broken:
            if "as was acknowledged" in str(broken):
                return
    pytest.fail(f"nobody notices what {breach}")


@pytest.mark.parametrize("name", _OBJECTS)
def test_the_fabric_has_what_the_contract_asks_for(name):
    wanted = {member for member in vars(getattr(contract, name)) if member[0] != "_"}
    made = getattr(compiled("_fake_fabric"), "FabricLane" if name == "Lane" else name)
    assert not wanted - set(dir(made))
