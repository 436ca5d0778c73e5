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


# --- a simulation -----------------------------------------------------------------------------


class World:
    """A local copy, replicas, a program that stores and sends, and bits that flip.

    A send takes the local bytes at its beginning, and they arrive at any time until its end.
    """

    def __init__(self, chance, replicas, sees):
        self.chance = chance
        self.sees = sees
        self.local = [0] * PAGES
        self.theirs = [[0] * PAGES for _ in range(replicas)]
        self.under_way = {}  # page: (content, replicas that lack it)
        self.sent = set()
        self.stored = set()
        #: Truth: pages of which a copy was flipped, and not written over since.
        self.flipped = {}
        self.next = 1
        self.still = False
        self.state = Verification(PAGES)

    def act(self):
        page = self.chance.randrange(PAGES)
        what = self.chance.choice(("store", "send", "arrive", "arrive", "end"))
        if what == "store":
            self.local[page] = self.fresh() if self.chance.random() < 0.7 else 0
            self.stored.add(page)
        elif what == "send" and page not in self.under_way:
            self.sent.add(page)
            self.under_way[page] = (self.local[page], set(range(len(self.theirs))))
        elif what == "arrive" and page in self.under_way:
            self.arrive(page)
        elif what == "end" and page in self.under_way:
            self.finish(page)

    def fresh(self):
        self.next += 1
        return self.next

    def arrive(self, page):
        content, lacking = self.under_way[page]
        if lacking:
            replica = self.chance.choice(sorted(lacking))
            lacking.discard(replica)
            self.theirs[replica][page] = content
            self.flipped.pop((page, replica), None)

    def finish(self, page):
        while self.under_way[page][1]:
            self.arrive(page)
        del self.under_way[page]

    def flip(self, side, page):
        copy = self.local if side == LOCAL else self.theirs[side]
        copy[page] = -self.fresh() & 0xFFFFFFFF
        self.flipped[page, side] = copy[page]

    def some(self, most=4):
        for _ in range(0 if self.still else self.chance.randrange(most)):
            self.act()

    def take_marks(self):
        sent, self.sent = self.sent, set()
        stored, self.stored = self.stored, set()
        self.state.known[list(sent)] = False
        if self.sees:
            self.state.stored[list(stored)] = True
        else:
            self.state.doubtful[:] = True
        return sent, stored

    def run(self):
        """Make a pass, and return the verdicts of the pages that were looked at."""
        self.take_marks()
        moving = set(self.under_way)
        contents = [None] * (1 + len(self.theirs))
        order = [LOCAL, *range(len(self.theirs))]
        self.chance.shuffle(order)
        for side in order:
            self.some()
            contents[side + 1] = list(self.local if side == LOCAL else self.theirs[side])
            self.some()
        sent, stored = self.take_marks()
        during = flags(*stored) if self.sees else flags(*range(PAGES))
        piece = Seen(
            digests(contents[0]),
            [digests(each) for each in contents[1:]],
            flags(*moving, *sent),
            during,
        )
        return {int(page): self.look(int(page)) for page in self.state.take(0, piece)}

    def look(self, page):
        self.take_marks()
        if page in self.under_way:
            self.finish(page)  # calls are waited for
        self.state.known[list(self.sent)] = False
        self.sent.clear()
        mine = self.local[page]
        theirs = [each[page] for each in self.theirs]
        stored = not self.still and self.chance.random() < 0.3
        if stored:
            self.local[page] = self.fresh()
            self.stored.add(page)
        _, seen_now = self.take_marks()
        return self.state.judge(
            page,
            digest(mine),
            [digest(each) for each in theirs],
            stored=page in seen_now or not self.sees,
        )

    def rest(self):
        """Let everything be sent."""
        for page in range(PAGES):
            if page in self.under_way:
                self.finish(page)
            self.sent.add(page)
            for each in self.theirs:
                each[page] = self.local[page]
        self.flipped.clear()


@pytest.mark.parametrize("replicas", [1, 2, 3])
@pytest.mark.parametrize("sees", [True, False])
def test_no_false_alarm(replicas, sees):
    for seed in range(200):
        world = World(random.Random(seed), replicas, sees)
        for _ in range(12):
            world.some(12)
            for page, verdict in world.run().items():
                assert verdict.standing is not Standing.DIFFERENT, (seed, page, verdict)


@pytest.mark.parametrize("replicas", [1, 2, 3])
@pytest.mark.parametrize("sees", [True, False])
def test_a_flip_that_can_be_known_is_found(replicas, sees):
    """In a page that was seen equal, and of which nothing was sent, or stored to here, since."""
    sides = range(LOCAL if sees else 0, replicas)
    for seed in range(100):
        world = World(random.Random(seed), replicas, sees)
        for _ in range(5):
            world.some(12)
            world.run()
        world.rest()
        world.still = True  # nothing goes on during these passes
        world.run()
        side = world.chance.choice(sides)
        page = world.chance.randrange(PAGES)
        world.flip(side, page)
        if side != LOCAL and world.chance.random() < 0.5:
            world.local[page] = world.fresh()
            world.stored.add(page)
        verdicts = world.run()
        assert page in verdicts, (seed, side)
        assert verdicts[page].standing is Standing.DIFFERENT, (seed, side, verdicts)
        assert side in verdicts[page].wrong, (seed, side, verdicts)
        assert verdicts[page].certain
        assert all(
            verdict.standing is not Standing.DIFFERENT
            for other, verdict in verdicts.items()
            if other != page
        )
