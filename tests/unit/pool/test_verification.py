"""What is said of pages that differ, by rules alone: simulated by seed, and rule by rule."""

from __future__ import annotations

import random

import numpy as np
import pytest

from rpmem.pool.verification import LOCAL, Seen, Standing, Verdict, Verification

PAGES = 6


def digest(content: int) -> np.ndarray:
    return np.array([content, content >> 32, 7], np.uint32)


def digests(contents) -> np.ndarray:
    return np.array([digest(each) for each in contents], np.uint32)


def flags(*pages: int) -> np.ndarray:
    found = np.zeros(PAGES, bool)
    found[list(pages)] = True
    return found


def seen(mine, *theirs, moving=(), stored=()) -> Seen:
    return Seen(digests(mine), [digests(each) for each in theirs], flags(*moving), flags(*stored))


SAME = [1, 2, 3, 4, 5, 6]


@pytest.fixture
def state():
    return Verification(PAGES)


def but(**changes):
    """Return the contents of all pages, some of them changed: p2=9."""
    return [changes.get(f"p{page}", each) for page, each in enumerate(SAME)]


def settled(state):
    assert state.take(0, seen(SAME, SAME)).tolist() == []
    assert state.known.all()
    return state


# --- a piece ----------------------------------------------------------------------------------


def test_equal_pages_are_known(state):
    settled(state)
    assert state.counts == {Standing.EQUAL: 6, Standing.UNPERSISTED: 0, Standing.UNCLEAR: 0}


def test_pages_that_move_are_not_known(state):
    settled(state)
    assert state.take(0, seen(SAME, SAME, moving=(1, 4))).tolist() == []
    assert state.known.tolist() == [True, False, True, True, False, True]


def test_a_page_that_moves_and_differs_is_looked_at(state):
    state.stored[2] = True
    assert state.take(0, seen(but(p2=9), SAME, moving=(2,))).tolist() == [2]


def test_a_page_that_nobody_stored_to_is_looked_at(state):
    assert state.take(0, seen(but(p2=9), SAME)).tolist() == [2]


@pytest.mark.parametrize("known", [True, False])
def test_stored(state, known):
    if known:
        settled(state)
    state.stored[2] = True
    assert state.take(0, seen(but(p2=9), SAME)).tolist() == []
    assert state.counts[Standing.UNPERSISTED] == 1
    assert state.take(0, seen(SAME, but(p2=9))).tolist() == ([2] if known else [])


@pytest.mark.parametrize("known", [True, False])
def test_doubtful(state, known):
    if known:
        settled(state)
    state.doubtful[2] = True
    assert state.take(0, seen(but(p2=9), SAME)).tolist() == []
    assert state.counts[Standing.UNPERSISTED if known else Standing.UNCLEAR] == 1


def test_a_careful_look(state):
    state.stored[2] = True
    assert state.take(0, seen(but(p2=9), SAME), careful=True).tolist() == [2]


def test_stores_meanwhile_leave_a_page_stored_to(state):
    state.stored[:] = True
    state.doubtful[:] = True
    state.take(0, seen(SAME, SAME, stored=(3,)))
    assert state.stored.tolist() == state.doubtful.tolist() == flags(3).tolist()
    # What the replica has is known nevertheless.
    assert state.known.all()


def test_pages_that_hold_nothing(state):
    state.used[2] = False
    assert state.take(0, seen(but(p2=9), SAME)).tolist() == []
    assert state.counts[Standing.EQUAL] == 6


# --- a look -----------------------------------------------------------------------------------


def judge(state, mine, *theirs, stored=False, unsettled=False):
    return state.judge(
        2, digest(mine), [digest(each) for each in theirs], stored=stored, unsettled=unsettled
    )


def test_equal_after_all(state):
    state.stored[2] = state.doubtful[2] = True
    assert judge(state, 3, 3) == Verdict(Standing.EQUAL)
    assert state.known[2]
    assert not state.stored[2]
    assert not state.doubtful[2]
    state.stored[2] = True
    assert judge(state, 3, 3, stored=True) == Verdict(Standing.EQUAL)
    assert state.stored[2]


def test_the_side_is_known(state):
    settled(state)
    assert judge(state, 3, 9) == Verdict(Standing.DIFFERENT, (0,), certain=True)
    assert judge(state, 9, 3) == Verdict(Standing.DIFFERENT, (LOCAL,), certain=True)
    assert judge(state, 9, 8) == Verdict(Standing.DIFFERENT, (LOCAL, 0), certain=True)
    assert judge(state, 3, 3, 9) == Verdict(Standing.DIFFERENT, (1,), certain=True)


@pytest.mark.parametrize("how", ["now", "before", "doubtful"])
def test_stores_do_not_hide_a_wrong_replica(state, how):
    settled(state)
    state.stored[2] = how == "before"
    state.doubtful[2] = how == "doubtful"
    stored = how == "now"
    assert judge(state, 9, 3, stored=stored) == Verdict(Standing.UNPERSISTED)
    assert judge(state, 3, 9, stored=stored) == Verdict(Standing.DIFFERENT, (0,), certain=True)
    assert judge(state, 8, 9, stored=stored) == Verdict(Standing.DIFFERENT, (0,), certain=True)


def test_what_is_not_known(state):
    assert judge(state, 9, 3) == Verdict(Standing.DIFFERENT)
    assert judge(state, 9, 3, stored=True) == Verdict(Standing.UNCLEAR)
    state.doubtful[2] = True
    assert judge(state, 9, 3) == Verdict(Standing.UNCLEAR)
    state.stored[2] = True
    assert judge(state, 9, 3) == Verdict(Standing.UNPERSISTED)


def test_most_copies_decide(state):
    assert judge(state, 3, 3, 9) == Verdict(Standing.DIFFERENT, (1,))
    assert judge(state, 9, 3, 3) == Verdict(Standing.DIFFERENT, (LOCAL,))
    assert judge(state, 9, 8, 3) == Verdict(Standing.DIFFERENT)
    assert judge(state, 9, 9, 3, 3) == Verdict(Standing.DIFFERENT)
    state.stored[2] = True
    assert judge(state, 9, 3, 3) == Verdict(Standing.UNPERSISTED)


def test_what_was_interrupted(state):
    for stored in (True, False):
        assert judge(state, 9, 3, 8, stored=stored, unsettled=True).standing is (
            Standing.UNPERSISTED
        )


def test_replicas_that_disagree_where_somebody_stored(state):
    """A store beside a call is in what one of them got; one that joined has all that was stored."""
    state.stored[2] = True
    assert state.take(0, seen(but(p2=9), SAME, but(p2=9))).tolist() == []
    assert state.counts[Standing.UNPERSISTED] == 1
    assert judge(state, 9, 3, 9) == Verdict(Standing.UNPERSISTED)
    assert judge(state, 9, 3, 8) == Verdict(Standing.UNPERSISTED)
    # But where nobody stored, all have to be equal.
    assert state.take(0, seen(but(p1=9), SAME, but(p1=9))).tolist() == [1]
    # And what a replica has to have is known while nobody sends anything.
    state.take(0, seen(SAME, SAME, SAME))
    state.stored[2] = True
    assert state.take(0, seen(but(p2=9), SAME, but(p2=9))).tolist() == [2]
    assert judge(state, 9, 3, 9) == Verdict(Standing.DIFFERENT, (1,), certain=True)
