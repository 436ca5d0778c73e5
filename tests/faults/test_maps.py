"""What a copy has missed is known: it is sent just that when it is back, and equal then."""

from __future__ import annotations

import os
import random
import signal

import pytest

import rpmem
from rpmem.errors import ReplicaLost, RpmemError
from rpmem.pool import maps
from rpmem.pool.absent import Absent
from rpmem.pool.forms import Form
from rpmem.pool.superblock import LAYOUT_OFFSET, LAYOUT_SIZE, Layout
from tests.support import rebooted_rpmemd
from tests.support.alarm import Alarm, alarm
from tests.support.behind import FEW, LENGTH, PAGE, SIZE, Place, Sent, need_digests
from tests.support.media import ImageMedium, PoolImage, image_of, wait_unlocked
from tests.support.pools import OWN, PoolNode, kill

need_digests()

MODES = ["off", "digest", "kernel"]


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


@pytest.fixture
def sent(monkeypatch):
    """Return what is sent from now on, or since it was cleared."""
    return Sent(monkeypatch)


@pytest.fixture
def compared(monkeypatch):
    """Return the ranges that digests are asked of."""
    found = []
    digests = rpmem.Replica.digests

    def asked(replica, what, *rest, **more):
        found.append(tuple(what))
        return digests(replica, what, *rest, **more)

    monkeypatch.setattr(rpmem.Replica, "digests", asked)
    return found


def bump(pool, *places):
    """Store one byte in each of these places, and persist it by name."""
    array = pool["a"]
    for at in places:
        array[at] ^= 1
        pool.persist(array[at : at + 1])


# --- within one session -----------------------------------------------------------------------


def test_a_copy_that_left_is_sent_what_was_persisted_meanwhile(place, sent, compared):
    chance = random.Random(1)
    places = [chance.randrange(LENGTH) for _ in range(50)]
    with rpmem.Pool.open(place.local, place.replica) as pool:
        bump(pool, 17)
        pool.detach(0)
        bump(pool, *places)
        sent.clear()
        pool.attach(place.replica)
        assert sent.pages == {place.page(at) for at in places} | {5}  # the superblock
        assert compared == []
        bump(pool, 18)
    place.check()


def test_a_copy_that_left_and_missed_nothing_is_sent_nothing(place, sent, compared):
    with rpmem.Pool.open(place.local, place.replica) as pool:
        pool.detach(0)
        sent.clear()
        pool.attach(place.replica)
        assert len(sent.pages) == 1  # the superblock
        assert compared == []
    place.check()


def test_what_was_in_flight_when_a_copy_was_lost_is_sent(place, sent, compared):
    with rpmem.Pool.open(place.local, place.replica) as pool:
        bump(pool, 1000)
        os.kill(pool.replicas[0].peer.pid, signal.SIGSTOP)
        pid = pool.replicas[0].peer.pid
        pool["a"][3 * PAGE] += 1
        pool.replicas[0].give_up("the test wants it so")
        with pytest.raises(ReplicaLost):
            pool.persist(pool["a"][3 * PAGE : 3 * PAGE + 1])
        os.kill(pid, signal.SIGKILL)
        pool.detach(0)
        place.settle()
        sent.clear()
        pool.attach(place.replica)
        assert place.page(3 * PAGE) in sent.pages
        assert len(sent.pages) <= 1 + FEW
        assert compared == []
    place.check()


def test_what_was_flushed_and_not_drained_when_a_copy_was_lost_is_sent(place, sent, compared):
    with rpmem.Pool.open(place.local, place.replica) as pool:
        pool["a"][7 * PAGE] += 1
        pool.flush(pool["a"][7 * PAGE : 7 * PAGE + 1])
        kill(pool.replicas[0])
        pool.detach(0)
        place.settle()
        sent.clear()
        pool.attach(place.replica)
        assert place.page(7 * PAGE) in sent.pages
        assert compared == []
    place.check()


def test_the_pool_s_own_records_are_in_the_map(place, sent, compared):
    with rpmem.Pool.open(place.local, place.replica) as pool:
        pool.detach(0)
        pool.array("b", 10, "u1")[:] = 7
        pool.persist(pool["b"])
        pool.attrs("b")["k"] = 1
        pool.attach(place.replica)
        assert compared == []
    place.check()
    with rpmem.Pool.restore(place.local.with_name("again"), place.replica) as pool:
        assert pool["b"].tolist() == [7] * 10
        assert pool.attrs("b")["k"] == 1


@pytest.mark.parametrize("tracking", MODES)
def test_calls_without_a_range(place, sent, compared, tracking):
    try:
        pool = rpmem.Pool.open(place.local, place.replica, tracking=tracking)
    except rpmem.errors.RpmemError as error:
        pytest.skip(str(error))
    with pool:
        pool.persist()
        pool.detach(0)
        places = [5, 80_000, LENGTH - 1]
        array = pool["a"]
        array[places] += 1
        pool.persist()
        array[5] -= 1
        pool.persist()
        sent.clear()
        pool.attach(place.replica)
        if tracking != "off":
            assert sent.pages >= {place.page(at) for at in places}
            assert len(sent.pages) <= len(places) + FEW
            assert compared == []
        del array
    place.check()


def test_of_what_was_named_and_not_stored_to_only_what_differs_is_sent(place, sent, compared):
    with rpmem.Pool.open(place.local, place.replica) as pool:
        pool.detach(0)
        pool["a"][12_345] += 1
        pool.persist(pool["a"])
        sent.clear()
        pool.attach(place.replica)
        assert place.page(12_345) in sent.pages
        assert len(sent.pages) <= 1 + FEW
        assert compared
    place.check()


def test_what_is_persisted_while_two_copies_are_away(place, tmp_path, sent, compared):
    other = PoolNode(tmp_path / "other")
    with rpmem.Pool.open(place.local, place.replica) as pool:
        pool.attach(other.spec(), create=True, parts=1)
        compared.clear()
        pool.detach(0)
        bump(pool, 5 * PAGE)
        pool.detach(0)
        bump(pool, 9 * PAGE)
        sent.clear()
        pool.attach(other.spec())
        assert place.page(9 * PAGE) in sent.pages
        assert place.page(5 * PAGE) not in sent.pages
        bump(pool, 11 * PAGE)
        sent.clear()
        pool.attach(place.replica)
        assert {place.page(at * PAGE) for at in (5, 9, 11)} <= sent.pages
        assert len(sent.pages) <= 3 + FEW
        assert compared == []
    place.check()


def test_a_call_that_was_interrupted_and_never_sent_to_its_end(place, compared):
    """What was under way arrives; what was not is sent to the copy when it is back."""
    with rpmem.Pool.open(place.local, place.replica) as pool:
        pid = pool.replicas[0].peer.pid
        os.kill(pid, signal.SIGSTOP)
        pool["a"][:] += 1
        with pytest.raises(Alarm), alarm():
            pool.persist((place.offset, LENGTH))
        os.kill(pid, signal.SIGCONT)
        pool.drain()
        pool.detach(0)
        place.settle()
        pool.attach(place.replica)
        place.check()


@pytest.mark.parametrize("away", [False, True])
def test_a_change_of_the_records_that_was_interrupted(place, monkeypatch, away):
    """The local copy has it, and no call ever began."""

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with rpmem.Pool.open(place.local, place.replica) as pool:
        if away:
            pool.detach(0)
        with monkeypatch.context() as patch:
            patch.setattr(type(pool._copies), "call", interrupted)
            with pytest.raises(KeyboardInterrupt):
                pool._arrays.require({"b": Form.of(10, "u1", "C")})
        assert "b" in pool
        if not away:
            pool.detach(0)
        place.settle()
        pool.attach(place.replica)
        place.check()


def test_two_copies_that_are_lost_at_once(place, tmp_path):
    other = PoolNode(tmp_path / "other")
    with rpmem.Pool.open(place.local, place.replica) as pool:
        pool.attach(other.spec(), create=True, parts=1)
        for each in pool.replicas:
            each.give_up("the test wants it so")
        with pytest.raises(ReplicaLost):
            bump(pool, 5 * PAGE)
        with pytest.raises(ReplicaLost):
            pool.detach(0)
        pool.detach(0)
        place.settle()
        wait_unlocked(other.directory / "pool.set")
        for spec in (place.replica, other.spec()):
            pool.attach(spec)
        place.check()
        assert other.contents()[: SIZE - OWN] == place.local.read_bytes()[OWN:]


def test_of_what_others_missed_a_copy_that_stays_needs_nothing(place, tmp_path, sent):
    other = PoolNode(tmp_path / "other")
    with rpmem.Pool.open(place.local, place.replica) as pool:
        pool.attach(other.spec(), create=True, parts=1)
        pool.replicas[0].give_up("the test wants it so")
        with pytest.raises(ReplicaLost):
            bump(pool, 5 * PAGE)
        pool.detach(0)
        pool.detach(0)
        wait_unlocked(other.directory / "pool.set")
        sent.clear()
        pool.attach(other.spec())
        assert place.page(5 * PAGE) not in sent.pages


def test_memory_is_a_bit_a_page_for_each_copy_that_is_away_and_one_for_all_others(place, tmp_path):
    other = PoolNode(tmp_path / "other")

    def sets():
        copies = pool._copies
        return len(copies.absent.maps), copies._doubtful is not None

    with rpmem.Pool.open(place.local, place.replica) as pool:
        assert sets() == (0, True)
        pool.attach(other.spec(), create=True, parts=1)
        assert sets() == (0, True)
        pool.detach(0)
        assert sets() == (1, True)
        pool.detach(0)
        assert sets() == (2, False)
        assert all(len(each.content()) == -(-SIZE // 32768) for each in pool._copies.absent.maps)


def test_a_copy_that_is_back_is_away_no_longer(place):
    with rpmem.Pool.open(place.local, place.replica) as pool:
        for _ in range(3):
            pool.detach(0)
            assert len(pool._copies.absent) == 1
            place.settle()
            pool.attach(place.replica)
            assert len(pool._copies.absent) == 0


# --- doubt ------------------------------------------------------------------------------------


def test_a_copy_that_comes_back_in_another_epoch_is_compared(place, sent, compared):
    """Somebody else took it up meanwhile, and its map says nothing about that."""
    with rpmem.Pool.open(place.local, place.replica) as pool:
        pool.detach(0)
        elsewhere = place.local.with_name("elsewhere")
        with rpmem.Pool.restore(elsewhere, place.replica) as other:
            other["a"][50_000] += 1
            other.persist(other["a"][50_000:50_001])
        place.settle()
        compared.clear()
        pool.attach(place.replica, discard=True)
        assert compared
    place.check()


def test_a_copy_whose_name_is_given_to_be_discarded_is_compared(place, compared):
    with rpmem.Pool.open(place.local, place.replica) as pool:
        pool.detach(0)
        place.settle()
        flip(place, 40 * PAGE)
        pool.attach(place.replica, discard=True)
        assert compared
    place.check()


def flip(place, at):
    """Change a byte in the replica's file."""
    with place.file() as file:
        file.seek(at)
        (byte,) = file.read(1)
        file.seek(at)
        file.write(bytes([byte ^ 1]))


def test_a_copy_that_joined_in_part_is_compared(place, monkeypatch, compared):
    with rpmem.Pool.open(place.local, place.replica) as pool:
        pool.detach(0)
        bump(pool, 5 * PAGE)

        def failing(*_, **__):
            raise ReplicaLost("in the middle")

        with monkeypatch.context() as patch:
            patch.setattr(rpmem.Replica, "persist_many", failing)
            with pytest.raises(ReplicaLost):
                pool.attach(place.replica)
        place.settle()
        pool.attach(place.replica)
        assert compared
    place.check()


@pytest.mark.parametrize(
    ("before", "after", "medium", "trusted"),
    [
        (1, 1, "volatile", True),
        (1, 2, "volatile", False),
        (0, 0, "volatile", False),
        (1, 0, "volatile", False),
        (0, 1, "volatile", False),
        (1, 1, "unknown", True),
        (1, 2, "unknown", False),
        (1, 2, "page", True),
        (0, 0, "page", True),
    ],
)
def test_what_was_in_memory_does_not_outlive_its_machine(
    place, compared, before, after, medium, trusted
):
    how = {"command": rebooted_rpmemd.command(before, medium)}
    with rpmem.Pool.open(place.local, place.replica, **how) as pool:
        assert (pool.replicas[0].level == "persistent") == (medium == "page")
        pool.detach(0)
        place.settle()
        bump(pool, 5 * PAGE)
        if not trusted:
            flip(place, 40 * PAGE)
        pool._copies._options = rpmem.session.options.SessionOptions(
            command=rebooted_rpmemd.command(after, medium)
        )
        pool.attach(place.replica)
        assert (compared == []) == trusted
    place.check()


# --- over a clean close -----------------------------------------------------------------------


def reopened(place, *actions, **how):
    """Let each action have the pool, without its replica, and close it."""
    for action in actions:
        with rpmem.Pool.open(place.local, [], **how) as pool:
            action(pool)


@pytest.fixture
def needs_kernel():
    """Skip where the kernel does not tell what is stored."""
    from rpmem.memory.changes.pagemap import try_on
    from rpmem.memory.region import Region

    try:
        try_on(Region.anonymous(PAGE))
    except RpmemError as error:
        pytest.skip(str(error))


def test_what_is_changed_over_many_openings_is_sent(place, sent, compared, needs_kernel):
    chance = random.Random(1)
    turns = [[chance.randrange(LENGTH) for _ in range(10)] for _ in range(4)]
    reopened(place, *(lambda pool, turn=turn: bump(pool, *turn) for turn in turns))
    compared.clear()
    with rpmem.Pool.open(place.local, place.replica):
        assert compared == []
    places = {place.page(at) for turn in turns for at in turn}
    assert places <= sent.pages
    assert len(sent.pages) <= len(places) + FEW
    place.settle()
    place.check()


def test_what_was_stored_and_never_persisted_is_sent(place, sent, compared, needs_kernel):
    def store(pool):
        pool["a"][77_777] += 1

    reopened(place, store)
    compared.clear()
    with rpmem.Pool.open(place.local, place.replica):
        assert compared == []
    assert place.page(77_777) in sent.pages
    assert len(sent.pages) <= 1 + FEW
    place.settle()
    place.check()


@pytest.mark.parametrize("tracking", ["off", "digest"])
def test_where_nothing_tells_what_was_stored_it_is_compared(place, sent, compared, tracking):
    def store(pool):
        pool["a"][77_777] += 1

    reopened(place, store, store, tracking=tracking)
    compared.clear()
    place.reopen()
    assert compared
    assert place.page(77_777) in sent.pages
    assert len(sent.pages) <= 1 + FEW
    place.check()


def test_a_copy_that_was_lost_and_not_detached(place, sent, compared):
    """The map of what it missed is made at the end."""
    with rpmem.Pool.open(place.local, place.replica) as pool:
        pool.persist()
        bump(pool, 5 * PAGE)
        kill(pool.replicas[0])
        with pytest.raises(RpmemError):
            bump(pool, 9 * PAGE)
        with pytest.raises(RpmemError):
            bump(pool, 11 * PAGE)
        pool["a"][13 * PAGE] += 1
    place.settle()
    compared.clear()
    sent.clear()
    with rpmem.Pool.open(place.local, place.replica):
        assert compared == []
    assert {place.page(at * PAGE) for at in (9, 11, 13)} <= sent.pages
    assert len(sent.pages) <= 3 + FEW
    place.settle()
    place.check()


def test_several_maps_are_kept(place, tmp_path, sent, compared, needs_kernel):
    others = [PoolNode(tmp_path / f"n{number}") for number in range(3)]
    specs = [each.spec() for each in others]
    with rpmem.Pool.open(place.local, place.replica) as pool:
        for spec in specs:
            pool.attach(spec, create=True, parts=1)
    for number in range(len(specs)):
        with rpmem.Pool.open(place.local, specs[number + 1 :]) as pool:
            bump(pool, 5 * PAGE * (number + 1))
    reopened(place, lambda pool: pool.array("b", 100_000, "u1"))
    with rpmem.Pool.open(place.local, []) as pool:
        compared.clear()
        for number, spec in enumerate(specs):
            sent.clear()
            pool.attach(spec)
            pages = {place.page(5 * PAGE * (turn + 1)) for turn in range(number, 3)}
            assert pages <= sent.pages
            assert len(sent.pages) <= len(pages) + FEW + 26
        assert compared == []
    for each in others:
        assert each.contents()[: SIZE - OWN] == place.local.read_bytes()[OWN:]


# --- doubt about what was kept ----------------------------------------------------------------


def test_a_map_is_not_believed_after_a_crash(place, compared):
    reopened(place, lambda pool: bump(pool, 5 * PAGE))
    place.die(7)
    compared.clear()
    place.reopen()
    assert compared
    place.check()


@pytest.mark.parametrize("what", ["table", "map"])
def test_a_map_that_is_damaged_is_not_believed(place, compared, what, needs_kernel):
    reopened(place, lambda pool: bump(pool, 5 * PAGE), lambda pool: bump(pool, 9 * PAGE))
    with rpmem.Pool.open(place.local, [], readonly=True) as pool:
        layout = pool._copies.layout
        table = pool._copies.local.region
        with memoryview(table) as view:
            head = bytes(view[maps.TABLE_OFFSET : maps.TABLE_OFFSET + maps.TABLE_SIZE])
    entry = maps._ENTRY.unpack_from(head, maps._HEAD.size)
    assert entry[3]
    assert entry[8] == -(-layout.pool_size // 32768)
    with open(place.local, "r+b") as file:
        file.seek(maps.TABLE_OFFSET + 60 if what == "table" else entry[7])
        (byte,) = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))
    with rpmem.Pool.open(place.local, place.replica):
        assert compared
    place.settle()
    # What was damaged is in both copies by now.
    place.check()


def kept_of(place):
    """Return what the local file says of copies that are away."""
    image = PoolImage.parse(image_of(place.local))
    layout = Layout.unpack(image.image[LAYOUT_OFFSET : LAYOUT_OFFSET + LAYOUT_SIZE])
    return maps.read(ImageMedium(image.image), layout, image.record, Absent(SIZE))


@pytest.mark.parametrize("room", [False, True])
def test_without_room_there_is_no_map(place, compared, room):
    with rpmem.Pool.open(place.local, place.replica) as pool:
        pool.persist()
        pool.array("b", SIZE - place.offset - LENGTH - 3 * PAGE, "u1")
        number = 0
        while not room:
            try:
                pool.array(f"c{number}", 1, "u1")
            except rpmem.errors.PoolFull:
                break
            number += 1
        pool.persist()
        pool.detach(0)
        bump(pool, 5 * PAGE)
    assert len(kept_of(place).absences) == room
    compared.clear()
    with rpmem.Pool.open(place.local, place.replica):
        assert (compared == []) == room
    place.settle()
    place.check()


@pytest.mark.parametrize(("after", "trusted"), [(1, True), (2, False), (0, True)])
def test_a_copy_that_was_closed_and_whose_machine_was_restarted(place, compared, after, trusted):
    """Nothing may be sent to it otherwise: it is clean and of the same epoch."""
    place.reopen(command=rebooted_rpmemd.command(1))
    compared.clear()
    if not trusted:
        flip(place, 40 * PAGE)
    with rpmem.Pool.open(place.local, place.replica, command=rebooted_rpmemd.command(after)):
        assert (compared == []) == trusted
    place.settle()
    place.check()


@pytest.mark.parametrize(("after", "trusted"), [(1, True), (2, False), (0, False)])
def test_a_copy_that_was_left_out_and_whose_machine_was_restarted(
    place, compared, after, trusted, needs_kernel
):
    place.reopen(command=rebooted_rpmemd.command(1))
    reopened(place, lambda pool: bump(pool, 5 * PAGE), lambda pool: bump(pool, 9 * PAGE))
    if not trusted:
        flip(place, 40 * PAGE)
    compared.clear()
    with rpmem.Pool.open(place.local, place.replica, command=rebooted_rpmemd.command(after)):
        assert (compared == []) == trusted
    place.settle()
    place.check()
