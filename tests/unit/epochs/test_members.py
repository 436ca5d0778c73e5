"""Steps of `Members` that random histories of existing copies do not get to."""

from __future__ import annotations

import pytest

from rpmem.epochs.members import Members
from rpmem.epochs.record import MOST_MEMBERS, CopyRecord
from rpmem.errors import StaleReplica, UsageError


class Kept:
    """A record in memory; `log` tells in which order records were written."""

    def __init__(self, name: int, log: list[int] | None = None) -> None:
        self.named = f"copy {name}"
        self.uuid = bytes([name]) * 16
        self.record: CopyRecord | None = None
        self._log = [] if log is None else log

    def write(self, record, *, discard=False):
        self.record = record
        self._log.append(record.copy[0])

    def leave(self):
        raise NotImplementedError


def pool(count: int, log: list[int] | None = None) -> Members[Kept]:
    own, *others = [Kept(each, log) for each in range(count)]
    return Members(own, others)


def test_the_own_copy_of_a_new_pool_is_recorded_last():
    log: list[int] = []
    members = pool(3, log)
    members.found()
    assert log == [2, 1, 0]
    assert {each.record.epoch for each in members.everyone} == {members.epoch}


@pytest.mark.parametrize("same", [True, False])
def test_clean_copies_are_sent_what_no_record_speaks_of(same):
    members = pool(2)
    members.found()
    members.finish()
    sent = []
    again = Members(members.own)
    again.agree(members.others, sent.append, same=lambda _: same)
    assert sent == ([] if same else members.others)


def test_a_pool_has_so_many_copies_at_most():
    members = pool(MOST_MEMBERS)
    members.found()
    members.finish()
    before = members.mine
    again = Members(members.own)
    with pytest.raises(UsageError, match=f"at most {MOST_MEMBERS} copies"):
        again.agree([*members.others, Kept(MOST_MEMBERS)], print)
    assert members.mine is before
    again.agree(members.others, print)
    assert len(again.epoch.members) == MOST_MEMBERS


def test_a_copy_that_was_overwritten_within_its_epoch_may_seem_to_be_put_back():
    """Nothing is lost: it is refused as a source, and another copy of the epoch is one."""
    members = pool(3)
    members.found()
    own, unmarked, clean = members.everyone
    Members(own, [clean]).finish()

    def cut_off(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Members(unmarked).agree([own], cut_off)
    with pytest.raises(StaleReplica, match="seems to be from before"):
        Members(own).agree([clean], print)
    again = Members(clean)
    again.agree([own, unmarked], print)
    assert len(again.epoch.members) == 3
