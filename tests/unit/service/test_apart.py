"""A service thread leaves the processor of its initiator, and only that one."""

from __future__ import annotations

import os

import pytest

from tests.support.compiled import compiled

_apart = compiled("_apart")


@pytest.fixture
def allowed():
    before = os.sched_getaffinity(0)
    yield sorted(before)
    os.sched_setaffinity(0, before)


@pytest.fixture
def several(allowed):
    if len(allowed) < 2:
        pytest.skip("there is one processor")
    return allowed


def stand(processor, allowed):
    """Be on a processor, and free to go to others."""
    os.sched_setaffinity(0, {processor})
    os.sched_setaffinity(0, allowed)


def test_it_moves_from_the_neighbours_processor(several):
    left = 0
    for _ in range(20):
        for processor in several:
            stand(processor, several)
            # Others may be in the way at any of these moments.
            here, moved = _apart.kept_apart(1 + processor)
            left += bool(moved) and here != processor
            assert sorted(os.sched_getaffinity(0)) == several
    assert left > 10 * len(several)


def test_it_stays_on_another(several):
    here, elsewhere = several[:2]
    os.sched_setaffinity(0, {here})
    assert _apart.kept_apart(1 + elsewhere) == (here, 0)
    assert _apart.kept_apart(0) == (here, 0)
    assert _apart.kept_apart(1 << 20) == (here, 0)


def test_it_stays_where_it_has_to(allowed):
    here = allowed[0]
    os.sched_setaffinity(0, {here})
    assert _apart.kept_apart(1 + here)[0] == here
    assert os.sched_getaffinity(0) == {here}


def test_it_does_not_move_all_the_time(several):
    here = several[0]
    os.sched_setaffinity(0, {here})
    _, moved = _apart.kept_apart(1 + here)
    assert moved
    assert _apart.kept_apart(1 + here, moved) == (here, moved)
