"""The in-band service: what the target's medium is told before a call is answered."""

from __future__ import annotations

import pytest

from rpmem._pmem import Region
from rpmem.errors import ReplicaLost
from tests.support.compiled import compiled
from tests.support.pair import SIZE, pair

KIB = 1 << 10


@pytest.fixture(params=["page", "pmem"])
def recorded(request):
    """Return the core of a pair, and what the target's medium was told since it was last asked."""
    told = []
    with pair(message_size=64 * KIB) as both:
        compiled("_hooked_media").hook(
            both.there, lambda *call: told.append(call), medium=request.param
        )
        core = both.connect()
        core.persist((0, 8))

        def since():
            calls = list(told)
            told.clear()
            return calls

        since()
        yield core, since


def covered(calls, verbs):
    """Return the bytes that calls with these verbs have flushed."""
    return {
        byte
        for verb, offset, length in calls
        if verb in verbs
        for byte in range(offset // 64, -(-(offset + length) // 64))
    }


def lines(*ranges):
    return {
        byte
        for offset, length in ranges
        for byte in range(offset // 64, -(-(offset + length) // 64))
    }


RANGES = [
    [(4096, 64)],
    [(0, 8), (300 * KIB, 8)],
    [(300 * KIB, 8), (0, 8)],
    [(600 * KIB, 64), (300 * KIB, 64), (900 * KIB, 64)],
    [(8192, 200 * KIB)],
    [(0, SIZE)],
]


@pytest.mark.parametrize("ranges", RANGES, ids=str)
def test_deep_is_deep_at_the_target(recorded, ranges):
    core, since = recorded
    for where in ranges:
        core.deep_persist(where)
    calls = since()
    assert lines(*ranges) <= covered(calls, {"deep"}), calls
    assert not covered(calls, {"persist", "flush"}), calls


@pytest.mark.parametrize("ranges", RANGES, ids=str)
def test_what_is_not_deep_is_not(recorded, ranges):
    core, since = recorded
    core.persist_many(ranges)
    calls = since()
    assert lines(*ranges) <= covered(calls, {"persist", "flush"}), calls
    assert not covered(calls, {"deep"}), calls


def test_a_deep_call_leaves_nothing_deep_behind(recorded):
    core, since = recorded
    core.deep_persist((4096, 64))
    assert covered(since(), {"deep"}) == lines((4096, 64))
    for call in (core.persist, core.flush):
        call((8192, 64))
        core.drain()
        calls = since()
        assert not covered(calls, {"deep"}), calls
        assert covered(calls, {"persist", "flush"}) >= lines((8192, 64))


@pytest.mark.parametrize("ranges", RANGES, ids=str)
def test_what_was_flushed_is_told_by_the_end_of_drain(recorded, ranges):
    core, since = recorded
    for where in ranges:
        core.flush(where)
    core.drain()
    calls = since()
    assert lines(*ranges) <= covered(calls, {"persist", "flush"}), calls


@pytest.mark.parametrize("verb", ["persist", "deep_persist"])
def test_persistent_memory_is_drained_after_its_flush(verb):
    """Pages are synced in one call; cache lines are on their way until they are waited for."""
    told = []
    with pair() as both:
        compiled("_hooked_media").hook(
            both.there, lambda verb, *_: told.append(verb), medium="pmem"
        )
        core = both.connect()
        for _ in range(3):
            told.clear()
            getattr(core, verb)((4096, 64))
            assert told[-1] == "drain", told
            assert set(told[:-1]) == {"deep" if verb == "deep_persist" else "flush"}, told


@pytest.mark.parametrize("verb", ["persist", "deep_persist"])
def test_what_the_medium_refuses_is_not_answered_as_done(verb):
    refuses = []
    for medium in ("page", "pmem"):
        with pair() as both:
            compiled("_hooked_media").hook(
                both.there, lambda *_: 5 if refuses else 0, medium=medium
            )
            core = both.connect()
            core.persist((0, 8))
            refuses.append(True)
            with pytest.raises(ReplicaLost, match="fault -3, refusal 1, detail 5"):
                getattr(core, verb)((4096, 64))
            refuses.clear()


def test_the_hook_is_where_the_service_flushes():
    """The control: without it nothing is told."""
    assert Region.anonymous(SIZE).medium == "volatile"
