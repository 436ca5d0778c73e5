"""Random histories of copies and two writers: what the real code does is what the model says.

And each rule is needed: where the real code and the model both lack one, the truth notices.
"""

from __future__ import annotations

import random
from collections import Counter

import pytest

from rpmem.epochs import change, opening
from rpmem.epochs.record import CopyRecord, Mark
from rpmem.epochs.relation import Relation
from tests.support import epoch_runs, epoch_truth, epoch_world, seeds
from tests.support.epoch_model import Session
from tests.support.epoch_shapes import Shape
from tests.support.epoch_truth import Truth, Violation

BLOCKS = 4
HISTORIES = 5000


@pytest.mark.parametrize("block", range(BLOCKS))
def test_random_histories_go_as_the_model_says(block, record_property):
    first = seeds.first(0) * BLOCKS * HISTORIES + block * HISTORIES
    counts = epoch_runs.run(first, HISTORIES)
    assert epoch_runs.seldom(counts, HISTORIES) == []
    assert epoch_runs.unknown(counts) == []
    record_property("histories", counts["histories"])


def violated_within(count: int) -> bool:
    for seed in range(count):
        try:
            epoch_world.run(seed)
        except Violation:
            return True
    return False


def test_a_copy_is_a_mixture_from_its_first_byte_on(monkeypatch):
    def begun(record, copy, epoch, *, discard=False):
        return real_joining(record, copy, epoch, discard=discard).replaced(mark=Mark.BEGUN)

    def told(session, copy, record, discarded):
        return joining(session, copy, record, discarded)._replace(mark=epoch_truth.BEGUN)

    monkeypatch.setattr(change, "joining", begun)
    monkeypatch.setattr(Session, "_joining", told)
    monkeypatch.setattr(change, "refusal", lambda held, wanted, *, discard: None)
    assert violated_within(500)


real_joining, joining = change.joining, Session._joining


def test_a_clean_mark_is_removed_first(monkeypatch):
    monkeypatch.setattr(
        change,
        "marked",
        lambda record, mark: record if mark is Mark.BEGUN else marked(record, mark),
    )
    monkeypatch.setattr(Session, "_unmarked", lambda self, record: record)
    assert violated_within(500)


marked = change.marked


def test_a_mixture_is_no_source(monkeypatch):
    monkeypatch.setattr(CopyRecord, "complete", property(lambda _: True))
    monkeypatch.setattr(Truth, "complete", lambda self, copy: True)
    assert violated_within(500)


def test_only_clean_copies_are_equal(monkeypatch):
    standing = opening.standing

    def hasty(*arguments, **named):
        found = standing(*arguments, **named)
        return found.replaced(equal=found.relation is Relation.SAME)

    monkeypatch.setattr(opening, "standing", hasty)
    monkeypatch.setattr(Session, "_equal", lambda self, mine, other: mine.epoch == other.epoch)
    assert violated_within(500)


def test_what_is_discarded_is_not_of_the_past(monkeypatch):
    """Another copy of the same branch would be overwritten, and nobody named that one."""
    standing = opening.standing

    def taken_in(*arguments, **named):
        return standing(*arguments, **named).replaced(discarded=False)

    def met(session, joining, verdicts):
        return [session.seen[each] for each in joining if each in session.seen]

    monkeypatch.setattr(opening, "standing", taken_in)
    monkeypatch.setattr(Session, "_met", met)
    monkeypatch.setattr(change, "refusal", lambda held, wanted, *, discard: None)
    monkeypatch.setattr(Session, "_joining", keeping_what_was_offered)
    assert violated_within(2000)


def keeping_what_was_offered(session, copy, record, _):
    return joining(session, copy, record, False)


def test_copies_that_are_ahead_are_not_overwritten(monkeypatch):
    for module in (opening, epoch_world):
        monkeypatch.setattr(module, "relation", hasty_relation(module.relation))
    told = Truth.relation

    def hasty(truth, theirs, ours):
        found = told(truth, theirs, ours)
        return epoch_truth.BEHIND if found == epoch_truth.AHEAD else found

    monkeypatch.setattr(Truth, "relation", hasty)
    monkeypatch.setattr(change, "refusal", lambda held, wanted, *, discard: None)
    assert violated_within(500)


def hasty_relation(relation):
    def hasty(other, mine):
        found = relation(other, mine)
        return Relation.BEHIND if found is Relation.AHEAD else found

    return hasty


def test_a_difference_from_the_model_is_found(monkeypatch):
    """Something that is harmless is found too."""
    monkeypatch.setattr(opening, "MOST_PARTED", 3)
    assert violated_within(500)


def test_what_is_seldom_or_unknown_is_told():
    assert "met: unrelated" in epoch_runs.seldom(Counter(), HISTORIES)
    assert epoch_runs.unknown(Counter({"CLEAN -> LEFT": 1})) == ["CLEAN -> LEFT"]


def test_copies_of_which_none_can_be_opened_are_told():
    world = epoch_world.World(random.Random(0), Shape())
    world.check_life()
    for each, record in world.truth.copies.items():
        world.truth.copies[each] = record._replace(mark=epoch_truth.JOINING)
    with pytest.raises(Violation, match="no copy can be opened"):
        world.check_life()
