"""Copies that are compared while the pool is open: what is found, what is not, what is repaired."""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
from contextlib import contextmanager

import numpy as np
import pytest

import rpmem
from rpmem.errors import ClosedError, MalformedMessage, ReplicaLost, RpmemError, UsageError
from tests.support import faulty_rpmemd
from tests.support.behind import need_digests, without_digests
from tests.support.flips import flip, part_of, places
from tests.support.kernel import dropping, tells_no_stores
from tests.support.pools import PoolNode, fill, kill
from tests.support.verified import MODES, PAGE, PAGES, Verified, go_on, pages_in

need_digests()


class Interrupted(Exception):
    """What the handler of a signal raises."""


@contextmanager
def interrupting(seconds):
    """Raise in the middle of the block, if it takes so long; yield what will tell of it."""
    raised = []

    def handle(*_):
        raised.append(True)
        raise Interrupted

    before = signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-6))
    try:
        yield raised
    except Interrupted:
        pass
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture
def case(tmp_path):
    made = Verified(tmp_path, "auto", 1)
    yield made
    made.pool.close()


def reopened(case, mode="auto"):
    case.pool.close()
    case.pool = rpmem.Pool.open(case.local, case.specs, tracking=mode)
    return case.pool


def pages_of(case, places):
    return {case.page_of(each) for each in places}


def test_a_thousand_bits(tmp_path):
    """Each is found, in a pool of which nobody was given anything, and nothing else is."""
    case = Verified(tmp_path, "auto", 2)
    pool = reopened(case)
    with pool:
        assert pool.verify().differences == ()
        chance = random.Random(5)
        for rest in range(10):
            pages = chance.sample(range(PAGES), 100)
            sides = {page: chance.choice((-1, 0, 1)) for page in pages}
            for page, side in sides.items():
                case.flip(side, page * PAGE + chance.randrange(PAGE), chance.randrange(8))
            report = pool.verify()
            assert report.different == 100, rest
            assert (report.unpersisted, report.unclear, report.good) == (0, 0, False)
            names = ["local", *case.specs]
            found = {}
            for each in report.differences:
                for at in range(each.offset, each.offset + each.length, PAGE):
                    found[at] = each
            wanted = {case.page_of(page * PAGE): side for page, side in sides.items()}
            assert found.keys() == wanted.keys()
            for at, side in wanted.items():
                assert found[at].wrong == (names[side + 1],)
                assert found[at].arrays == ("x",)
                differing = case.specs if side < 0 else [case.specs[side]]
                assert found[at].copies == tuple(differing)
            for side in ("local", 0, 1):
                pool.verify(side)
            assert pool.verify().good
        assert pool.verify().differences == ()
        good = np.random.default_rng(1).integers(0, 256, PAGES * PAGE, "u1")
        for replica in (None, 0, 1):
            content = pool["x"] if replica is None else pool.read(pool["x"], replica=replica)
            assert np.array_equal(content, good)
            del content


def test_what_is_not_persisted_is_counted_apart(case):
    pool = case.pool
    array = pool["x"]
    assert pool.verify().unpersisted == 0
    array[0] ^= 1
    array[5 * PAGE : 7 * PAGE] ^= 1
    report = pool.verify()
    assert report.good
    assert report.differences == ()
    assert report.unpersisted + report.unclear in (3, 4)  # it need not begin with a page
    assert (report.unclear == 0) == (not tells_no_stores())
    pool.persist()
    report = pool.verify()
    assert (report.unpersisted, report.unclear) == (0, 0)
    del array


def test_a_page_that_the_program_has_stored_to_and_nobody_sent(case):
    """What a replica had is known: whatever is stored here, a bit that flips there is found."""
    pool = case.pool
    array = pool["x"]
    pool.verify()
    array[100] ^= 1
    case.flip(0, 200)
    report = pool.verify()
    assert pages_in(report) == pages_of(case, [200])
    (found,) = report.differences
    assert found.wrong == (case.specs[0],)
    assert found.certain
    del array


def test_a_page_that_was_sent_since_and_stored_to_cannot_be_known(case):
    """A bit that flipped in it is not told from what was stored, until it is persisted."""
    pool = case.pool
    array = pool["x"]
    pool.verify()
    array[100:108] += 1
    pool.persist(array[100:108])
    case.flip(0, 200)
    report = pool.verify()
    assert report.good
    assert report.unpersisted + report.unclear == 1
    pool.persist(array)
    report = pool.verify()
    assert report.unpersisted + report.unclear == report.different == 0
    # From now on it is known what both have.
    case.flip(0, 200)
    assert pages_in(pool.verify()) == pages_of(case, [200])
    del array


def test_a_page_that_the_kernel_drops_is_not_one_that_was_stored_to(case):
    """It is read anew from its medium, and what that has by now is what this is about."""
    if tells_no_stores():
        pytest.skip(tells_no_stores())
    pool = reopened(case)
    assert pool.verify().good
    case.flip(-1, 200)
    with dropping(case.page_of(200)):
        (found,) = pool.verify().differences
    assert pages_of(case, [200]) == {found.offset}
    assert (found.wrong, found.certain) == (("local",), True)


def test_replicas_that_differ_from_each_other(tmp_path):
    """A program that stores while a call sends may be why; where nobody stored, nothing may be."""
    case = Verified(tmp_path, "off", 2)
    with case.pool as pool:
        array = pool["x"]
        array[:] += 1  # and nothing of it is persisted
        case.flip(1, 77)
        report = pool.verify()
        assert report.different == 0
        assert report.unclear + report.unpersisted >= PAGES - 1
        del array
    with reopened(case) as pool:
        case.flip(1, 77 + PAGE)
        assert pages_in(pool.verify()) == pages_of(case, [77 + PAGE])


def test_bits_of_the_catalogue_and_of_room_that_has_to_be_zero(case):
    pool = reopened(case)
    layout = pool._copies.layout
    begin = layout.slot_offset(0) // PAGE * PAGE
    last = layout.pool_size - 1
    root = part_of(case.nodes[0].directory / "pool.set")
    flip(root, begin + 100)
    flip(root, last)
    report = pool.verify()
    assert pages_in(report) == {begin, last // PAGE * PAGE}
    assert all(each.arrays == () for each in report.differences)
    assert pool.verify(0).good
    assert pool.verify().differences == ()


def test_room_that_nothing_uses_does_not_matter(case):
    pool = case.pool
    pool.array("gone", 4 * PAGE, "u1")[:] = 3
    offset = pool.entry("gone").offset
    del pool["gone"]
    assert pool.verify().differences == ()
    flip(part_of(case.nodes[0].directory / "pool.set"), offset + PAGE)
    report = pool.verify()
    assert report.differences == ()
    # It is zeroed, everywhere, when it is used again.
    again = pool.array("again", 4 * PAGE, "u1")
    assert pool.entry("again").offset == offset
    assert not pool.read(again).any()
    del again


@pytest.mark.parametrize("side", ["number", "name", "object"])
def test_one_side_is_repaired(tmp_path, side):
    case = Verified(tmp_path, "auto", 2)
    pool = reopened(case)
    with pool:
        case.flip(-1, 5 * PAGE)
        case.flip(0, 15 * PAGE)
        case.flip(1, 25 * PAGE)
        before = [path.read_bytes() for path in case.parts()]
        named = {"number": 1, "name": case.specs[1], "object": pool.replicas[1]}[side]
        report = pool.verify(named)
        assert report.different == 3
        # Where the local copy is wrong, this replica gets what that has: it was named.
        assert report.repaired == 1
        after = [path.read_bytes() for path in case.parts()]
        assert after[:2] == before[:2]
        assert after[2] != before[2]
        report = pool.verify("local")
        assert report.different == 2
        after2 = [path.read_bytes() for path in case.parts()]
        assert after2[1:] == after[1:]


def test_the_local_copy_is_not_repaired_while_it_is_used(case):
    pool = reopened(case)
    case.flip(-1, 5 * PAGE)
    array = pool["x"]
    before = case.local.read_bytes()
    with pytest.raises(UsageError, match="while a program uses it: 'x'"):
        pool.verify("local")
    assert case.local.read_bytes() == before
    del array
    assert pool.verify("local").repaired == 0 or pool.verify().good


def test_a_buffer_is_not_repaired(tmp_path):
    node = PoolNode(tmp_path / "node")
    memory = np.zeros(4 << 20, "u1")
    with rpmem.Pool.create(memory, replicas=node.spec(), parts=1) as pool:
        fill(pool)
        assert pool.verify().differences == ()
        with pytest.raises(UsageError, match="while a program uses it"):
            pool.verify("local")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"repair": "node9 pool.set"}, "is not a copy of this pool"),
        ({"repair": 1}, "has no replica 1"),
        ({"rate_limit": 0}, "0"),
        ({"rate_limit": "fast"}, "size"),
        ({"progress": 7}, "cannot be called"),
    ],
)
def test_bad_arguments(case, arguments, said):
    with pytest.raises(RpmemError, match=said):
        case.pool.verify(**arguments)


def test_alone(tmp_path):
    pool = rpmem.Pool.create(tmp_path / "p", "2MiB")
    with pytest.raises(UsageError, match="no replica to compare with"):
        pool.verify()
    pool.close()
    with pytest.raises(ClosedError):
        pool.verify()
    pool = rpmem.Pool.open(tmp_path / "p", readonly=True)
    with pytest.raises(UsageError, match="readonly"):
        pool.verify()
    pool.close()


def test_progress_and_rate(case):
    told = []
    report = case.pool.verify(progress=lambda *each: told.append(each), rate_limit="64MiB")
    assert told[0][0] == 0
    assert told[-1][0] == told[-1][1]
    assert report.pages == case.pool.size // PAGE - 5


def test_a_replica_that_is_lost_meanwhile(case):
    pool = case.pool

    def end(done, total, what):
        kill(pool.replicas[0])

    with pytest.raises(ReplicaLost) as caught:
        pool.verify(progress=end)
    assert str(case.nodes[0].directory) in str(caught.value)
    pool.detach(0)
    with pytest.raises(UsageError, match="no replica"):
        pool.verify()


def test_what_progress_raises_ends_it_and_nothing_else(case):
    def refuse(done, total, what):
        raise KeyboardInterrupt

    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            case.pool.verify(progress=refuse)
    assert case.pool.verify().differences == ()
    case.pool.persist()


def test_a_replica_that_came_meanwhile(case, tmp_path):
    """What was known of others says nothing about it."""
    node = PoolNode(tmp_path / "other")
    pool = case.pool
    pool.verify()
    pool.attach(node.spec(), create=True, parts=1)
    assert pool.verify().differences == ()
    case.flip(0, 99)
    report = pool.verify()
    assert report.different == 1
    assert report.differences[0].wrong == (case.specs[0],)
    pool.detach(0)
    assert pool.verify().differences == ()


def test_a_change_of_the_replicas_ends_it(case):
    pool = case.pool

    def leave(done, total, what):
        if pool.replicas:
            pool.detach(0)

    with pytest.raises(UsageError, match="were changed while"):
        pool.verify(progress=leave)


@pytest.mark.parametrize(
    "breakage", [faulty_rpmemd.SHORT_DIGESTS, faulty_rpmemd.LONG_DIGESTS], ids=["short", "long"]
)
def test_digests_of_another_length(tmp_path, breakage):
    node = PoolNode(tmp_path / "node")
    command = faulty_rpmemd.command(breakage=breakage)
    with rpmem.Pool.create(tmp_path / "p", "4MiB", node.spec(), parts=1, command=command) as pool:
        fill(pool)
        with pytest.raises(MalformedMessage):
            pool.verify()


def test_digests_that_are_made_up_change_nothing(tmp_path):
    """Whatever a target says: what is reported was read from it."""
    node = PoolNode(tmp_path / "node")
    command = faulty_rpmemd.command(breakage=faulty_rpmemd.MADE_UP_DIGESTS)
    with rpmem.Pool.create(tmp_path / "p", "4MiB", node.spec(), parts=1, command=command) as pool:
        array = fill(pool)
        pool.persist()
        for _ in range(3):
            assert pool.verify().differences == ()
        del array


def test_a_target_that_takes_no_digests(tmp_path):
    node = PoolNode(tmp_path / "node")
    lacking = without_digests(tmp_path / "there")
    options = {"command": f"env PYTHONPATH={lacking.folder} {sys.executable} -P -m rpmemd"}
    with rpmem.Pool.create(tmp_path / "p", "4MiB", node.spec(), parts=1, **options) as pool:
        fill(pool)
    with rpmem.Pool.open(tmp_path / "p", node.spec(), **options) as pool:
        assert not pool.replicas[0].compares
        assert pool.verify().differences == ()
        flip(part_of(node.directory / "pool.set"), 1 << 20)
        assert pages_in(pool.verify()) == {1 << 20}
        assert pool.verify(0).repaired == 1
        assert pool.verify().differences == ()


def test_a_call_that_was_interrupted_is_no_difference(tmp_path):
    """Its bytes may be on one replica and not on the other, until they are sent again."""
    case = Verified(tmp_path, "off", 2)
    with case.pool as pool:
        pool._copies._unsettled.append((case.offset, PAGE))
        case.flip(1, 5)
        report = pool.verify()
        assert report.differences == ()
        assert report.unpersisted + report.unclear == 1
        pool.persist((case.offset, PAGE))
        report = pool.verify()
        assert report.unpersisted + report.unclear == 0


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("replicas", [1, 2])
def test_beside_threads_that_store(tmp_path, mode, replicas):
    """No false alarm, and no flipped bit that can be known is missed; more of it by hand."""
    if mode == "kernel" and tells_no_stores():
        pytest.skip("the kernel does not tell what changed")
    happened = go_on(2.0, mode, replicas, seed=os.getpid(), folder=tmp_path)
    assert happened["passes"] >= 4
    assert happened["nothing"] > 0


def test_two_at_once(case):
    """They take turns."""
    reports = []
    threads = [
        threading.Thread(target=lambda: reports.append(case.pool.verify())) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [each.differences for each in reports] == [()] * 3


def test_places_are_in_pages_of_their_own():
    found = places(random.Random(1), [(0, 10 * PAGE)], 5)
    assert len({each // PAGE for each in found}) == 5


def test_stored_before_the_first_time(tmp_path):
    """Nobody watched: it may be a store, and is not called a difference."""
    case = Verified(tmp_path, "auto", 1)
    pool = reopened(case)
    with pool:
        array = pool["x"]
        array[9] ^= 1
        report = pool.verify()
        assert report.good
        assert (report.unpersisted, report.unclear) == (0, 1)
        del array


def test_the_right_replica_repairs_the_local_copy(tmp_path):
    case = Verified(tmp_path, "auto", 2)
    pool = reopened(case)
    with pool:
        pool.verify()
        case.flip(-1, 9)
        case.flip(0, 19)
        report = pool.verify("local")
        assert report.repaired == 0  # still one replica is wrong there
        report = pool.verify(0)
        assert report.differences == () or report.repaired == 1
        assert pool.verify().differences == ()
    good = np.random.default_rng(1).integers(0, 256, PAGES * PAGE, "u1")
    with rpmem.Pool.open(case.local, case.specs) as pool:
        assert np.array_equal(pool["x"], good)


def test_what_is_repaired_is_missed_by_a_copy_that_is_away(tmp_path):
    case = Verified(tmp_path, "auto", 2)
    pool = reopened(case)
    with pool:
        case.flip(-1, 9)
        case.flip(1, 9)  # it got there with a send, say
        pool.detach(1)
        assert pool.verify("local").repaired == 1
        pool.attach(case.specs[1])
        assert pool.verify().differences == ()


def test_a_pool_that_is_closed_meanwhile(case):
    """The pass ends with an error, soon, and the pool is closed."""
    begun = threading.Event()
    ended = []

    def verify():
        try:
            while True:
                case.pool.verify(progress=lambda *_: begun.set(), rate_limit="8MiB")
        except RpmemError as error:
            ended.append(error)

    thread = threading.Thread(target=verify)
    thread.start()
    assert begun.wait(10)
    case.pool.close()
    thread.join(30)
    assert type(ended[0]) is ClosedError
    assert case.pool.closed
    case.pool = rpmem.Pool.open(case.local, case.specs)


def test_signals_end_a_pass_and_nothing_else(case):
    """Wherever it is: the next one has no false alarm, and a replica goes on answering."""
    array = case.pool["x"]
    chance = random.Random(3)
    interrupted = 0
    for count in range(60):
        array[chance.randrange(len(array))] += 1
        with interrupting(chance.random() * 0.03) as raised:
            for _ in range(3):
                report = case.pool.verify()
                assert report.differences == (), count
        interrupted += bool(raised)
        if count % 2:
            case.pool.persist(array[: chance.randrange(1, len(array))])
    assert interrupted > 3
    assert case.pool.verify().differences == ()
    case.pool.persist()
    report = case.pool.verify()
    assert report.differences == ()
    assert report.unpersisted + report.unclear == 0
    del array


def test_a_replica_that_was_sent_what_is_not_persisted(case, tmp_path):
    """It joins with what memory has, which the others do not have yet: that is no difference."""
    node = PoolNode(tmp_path / "other")
    pool = case.pool
    array = pool["x"]
    pool.verify()
    array[100] ^= 1
    pool.attach(node.spec(), create=True, parts=1)
    for _ in range(2):
        report = pool.verify()
        assert report.differences == ()
        assert report.unpersisted + report.unclear == 1
    pool.persist(array)
    report = pool.verify()
    assert report.differences == ()
    assert report.unpersisted + report.unclear == 0
    del array


def test_a_replica_is_repaired_with_what_is_not_persisted(tmp_path):
    case = Verified(tmp_path, "auto", 2)
    with case.pool as pool:
        array = pool["x"]
        pool.verify()
        array[100] ^= 1
        case.flip(0, 200)
        assert pool.verify(0).repaired == 1
        report = pool.verify()
        assert report.differences == ()
        assert report.unpersisted + report.unclear == 1
        pool.persist(array)
        assert pool.verify().unpersisted == 0
        del array


def test_what_a_flush_sends_later_is_no_difference(case):
    """It marks its pages when it begins, and its bytes may arrive after a whole pass."""
    pool = case.pool
    array = pool["x"]
    value = int(array[0])
    pool.verify()
    array[0] = value + 1 & 255
    pool.flush(array[:1])
    array[0] = value
    pool.verify()
    array[0] = value + 1 & 255
    pool.drain()
    array[0] = value + 2 & 255
    assert pool.verify().differences == ()
    del array


def test_a_page_of_which_some_is_unused(case):
    """Only what is used of it matters."""
    pool = case.pool
    pool.array("kept", 100, "u1")
    pool.array("gone", 100, "u1")
    kept, gone = pool.entry("kept").offset, pool.entry("gone").offset
    assert kept // PAGE == gone // PAGE
    del pool["gone"]
    part = part_of(case.nodes[0].directory / "pool.set")
    assert pool.verify().differences == ()
    flip(part, gone + 50)
    report = pool.verify()
    assert report.differences == ()
    flip(part, kept + 50)
    (found,) = pool.verify().differences
    assert found.arrays == ("kept",)
