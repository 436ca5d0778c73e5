"""What no record and no epoch can be like, and which copies are complete."""

from __future__ import annotations

import pytest

from rpmem.epochs import opening
from rpmem.epochs.record import CopyRecord, Epoch, Mark, Stamp
from rpmem.errors import StaleReplica, UsageError

HERE, THERE, ELSEWHERE = (bytes([each]) * 16 for each in (1, 2, 3))
FIRST = Epoch(1, bytes(16), (HERE, THERE), (HERE, THERE), 2)


def test_a_copy_is_complete_if_it_is_in_sync_and_no_mixture():
    part = FIRST.replaced(in_sync=(HERE,))
    assert CopyRecord(HERE, part, Mark.BEGUN).complete
    assert not CopyRecord(HERE, part, Mark.JOINING).complete
    assert not CopyRecord(THERE, part, Mark.CLEAN).complete
    with pytest.raises(StaleReplica):
        opening.check_source(CopyRecord(THERE, part, Mark.CLEAN), named="there")


def test_clean_copies_of_one_epoch_are_equal_if_both_are_in_sync():
    part = FIRST.replaced(in_sync=(HERE,))
    for epoch, equal in ((FIRST, True), (part, False)):
        mine, other = (CopyRecord(each, epoch, Mark.CLEAN) for each in (HERE, THERE))
        found = opening.standing(other, mine, "there", "here", discard=False)
        assert (found.equal, found.discarded) == (equal, False)


@pytest.mark.parametrize(
    "wrong",
    [
        {"number": 0},
        {"identity": b"short"},
        {"members": ()},
        {"members": (HERE, HERE), "in_sync": (HERE,)},
        {"in_sync": ()},
        {"in_sync": (HERE, ELSEWHERE)},
        {"in_sync": (HERE, HERE)},
        {"quorum": 3},
        {"history": (Stamp(1, bytes(16)),)},
        {"history": (Stamp(2, bytes(16)),)},
    ],
    ids=str,
)
def test_what_no_epoch_can_be_like(wrong):
    with pytest.raises(UsageError, match="no epoch"):
        FIRST.replaced(**wrong)


def test_what_is_prepared_is_later():
    second = FIRST.replaced(number=2, identity=bytes([2]) * 16)
    assert CopyRecord(HERE, FIRST, Mark.BEGUN, second).newest == second
    for number in (1, 2):
        with pytest.raises(UsageError, match="later"):
            CopyRecord(HERE, second, Mark.BEGUN, FIRST.replaced(number=number))
