"""From which copies a pool is restored: the newest epoch wins, and nothing that may be older."""

from __future__ import annotations

import itertools

import pytest

from rpmem.epochs import change, opening
from rpmem.epochs.choosing import Lost, choose
from rpmem.epochs.record import LARGEST_NUMBER, CopyRecord, Epoch, Mark
from rpmem.errors import (
    CatalogueCorrupt,
    NotProvenNewest,
    SplitBrain,
    StaleReplica,
    UsageError,
)

WRITER, A, B, C = (bytes([each]) * 16 for each in (1, 2, 3, 4))
NOBODY = Lost()


def record(copy: bytes, epoch: Epoch, mark: Mark = Mark.BEGUN) -> CopyRecord:
    return CopyRecord(copy, epoch, mark)


def first(*members: bytes) -> Epoch:
    return opening.first_epoch(members, identity=bytes([1]) * 16)


def after(epoch: Epoch, identity: int, *members: bytes) -> Epoch:
    """Return an epoch that begins with some of the copies; the others are given up."""
    gone = [each for each in epoch.members if each not in members]
    mine = record(members[0], epoch)
    return opening.next_epoch(
        mine, [], members, identity=bytes([identity]) * 16, when_s=0, given_up=gone
    )


def test_the_only_copy_of_two_is_enough():
    choice = choose({"a": record(A, first(WRITER, A))}, NOBODY)
    assert (choice.sources, choice.equal, choice.behind) == (("a",), False, ())
    assert choose({"a": record(A, first(WRITER, A), Mark.CLEAN)}, NOBODY).equal


def test_members_that_were_not_reached_are_missing():
    reached = {"a": record(A, first(WRITER, A, B, C))}
    with pytest.raises(NotProvenNewest) as caught:
        choose(reached, NOBODY)
    for copy in (B, C):
        assert copy.hex() in str(caught.value)
        assert copy.hex() in caught.value.hint
    assert WRITER.hex() not in str(caught.value)
    assert caught.value.code == "not-proven-newest"


@pytest.mark.parametrize(
    ("lost", "proven"),
    [
        (Lost(frozenset({B})), False),
        (Lost(frozenset({B, C})), True),
        (Lost(frozenset({WRITER, B})), False),
        (Lost(names=1), False),
        (Lost(names=2), True),
        (Lost(frozenset({C}), 1), True),
        (Lost(frozenset({WRITER}), 1), False),
    ],
)
def test_only_copies_that_are_named_are_given_up(lost, proven):
    reached = {"a": record(A, first(WRITER, A, B, C))}
    if proven:
        assert choose(reached, lost).sources == ("a",)
    else:
        with pytest.raises(NotProvenNewest):
            choose(reached, lost)


@pytest.mark.parametrize("order", list(itertools.permutations("abc")))
def test_the_newest_epoch_wins_in_any_order(order):
    """B was given up, and C left in order."""
    old = first(WRITER, A, B, C)
    newer = after(old, 2, WRITER, A, C)
    newest = after(newer, 3, WRITER, A)
    records = {
        "a": record(A, newest),
        "b": record(B, old, Mark.CLEAN),
        "c": record(C, newer, Mark.LEFT),
    }
    choice = choose({name: records[name] for name in order}, NOBODY)
    assert choice.sources == ("a",)
    assert set(choice.behind) == {"b", "c"}


def test_a_stale_copy_alone_proves_nothing():
    old = first(WRITER, A, B)
    with pytest.raises(NotProvenNewest):
        choose({"b": record(B, old)}, NOBODY)
    assert choose({"b": record(B, old)}, Lost(frozenset({A}))).sources == ("b",)


def test_a_stale_copy_that_is_exposed_is_no_source():
    """The newest copy is a mixture: the older one is whole, and yet it is not taken."""
    old = first(WRITER, A, B)
    newest = after(old, 2, WRITER, A)
    reached = {"b": record(B, old, Mark.CLEAN), "a": record(A, newest, Mark.JOINING)}
    with pytest.raises(StaleReplica, match="mixture") as caught:
        choose(reached, NOBODY)
    assert caught.value.where == "a"
    with pytest.raises(StaleReplica):
        choose(reached, Lost(frozenset({WRITER}), 5))


def test_closed_copies_come_before_those_that_are_not():
    epoch = first(WRITER, A, B, C)
    reached = {
        "a": record(A, epoch, Mark.LEFT),
        "b": record(B, epoch),
        "c": record(C, epoch, Mark.JOINING),
    }
    choice = choose(reached, NOBODY)
    assert (choice.sources, choice.equal, choice.behind) == (("b", "a"), False, ("c",))
    reached["a"] = record(A, epoch, Mark.CLEAN)
    choice = choose(reached, NOBODY)
    assert (choice.sources, choice.equal, choice.behind) == (("a",), True, ("b", "c"))


def test_a_copy_that_is_not_in_sync_is_no_source():
    epoch = Epoch(1, bytes(16), (WRITER, A, B), (WRITER, A), 2)
    choice = choose({"b": record(B, epoch), "a": record(A, epoch)}, NOBODY)
    assert (choice.sources, choice.behind) == (("a",), ("b",))


def test_what_is_only_offered_counts_as_its_predecessor():
    old = first(WRITER, A, B)
    offered = after(old, 2, WRITER, A, B)
    reached = {"a": change.prepared(record(A, old), offered), "b": record(B, old)}
    choice = choose(reached, NOBODY)
    assert choice.sources == ("a", "b")
    begun = {"a": record(A, offered), "b": reached["b"]}
    assert choose(begun, NOBODY).behind == ("b",)


def test_a_restore_that_was_killed_is_in_nobodys_way():
    """Its new copy never counted; the replica is alone in an epoch with it."""
    epoch = after(first(WRITER, A, B), 2, C, A)
    assert choose({"a": record(A, epoch)}, NOBODY).sources == ("a",)
    assert choose({"b": record(B, first(WRITER, A, B)), "a": record(A, epoch)}, NOBODY).behind == (
        "b",
    )


def test_copies_that_went_separate_ways_are_refused():
    old = first(WRITER, A, B)
    reached = {
        "a": record(A, after(old, 2, WRITER, A)),
        "b": record(B, after(old, 3, C, B)),
    }
    with pytest.raises(SplitBrain, match="separate ways after epoch 1") as caught:
        choose(reached, NOBODY)
    assert A.hex() in caught.value.hint
    assert B.hex() in caught.value.hint


def test_what_makes_no_sense_is_refused():
    epoch = first(WRITER, A, B)
    with pytest.raises(UsageError, match="same copy as a"):
        choose({"a": record(A, epoch), "b": record(A, epoch)}, NOBODY)
    with pytest.raises(UsageError, match="named as lost"):
        choose({"a": record(A, epoch), "b": record(B, epoch)}, Lost(frozenset({B})))


@pytest.mark.parametrize("offered", [False, True])
def test_a_record_that_leaves_no_room_for_another_epoch_is_refused(offered):
    absurd = Epoch(LARGEST_NUMBER, bytes(16), (WRITER, A), (WRITER, A), 2)
    hostile = record(A, absurd)
    if offered:
        hostile = change.prepared(record(A, first(WRITER, A)), absurd)
    with pytest.raises(CatalogueCorrupt, match="no epoch can come after") as caught:
        choose({"a": hostile}, NOBODY)
    assert caught.value.where == "a"
