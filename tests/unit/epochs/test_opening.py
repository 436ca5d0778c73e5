"""What a split is told of as: since when, who gave up whom, and where both went."""

from __future__ import annotations

import pytest

from rpmem.epochs import opening
from rpmem.epochs.record import CopyRecord, Epoch, Mark
from rpmem.errors import SplitBrain

HERE, THERE = (bytes([each]) * 16 for each in (1, 2))


def alone(record: CopyRecord, identity: int, *given_up: bytes) -> CopyRecord:
    """Let a copy go on by itself."""
    epoch = opening.next_epoch(
        record, [], [record.copy], identity=bytes([identity]) * 16, when_s=0, given_up=given_up
    )
    return CopyRecord(record.copy, epoch, Mark.CLEAN)


def test_a_split_is_told_of_from_the_last_common_epoch_on():
    first = opening.first_epoch([HERE, THERE], identity=bytes([1]) * 16)
    mine = CopyRecord(HERE, first, Mark.CLEAN)
    second = opening.next_epoch(mine, [], [HERE, THERE], identity=bytes([2]) * 16, when_s=0)
    here = alone(alone(CopyRecord(HERE, second, Mark.CLEAN), 3, THERE), 4)
    there = alone(CopyRecord(THERE, second, Mark.CLEAN), 5)
    assert opening.last_common(here.epoch, there.epoch) == second.stamp
    with pytest.raises(SplitBrain) as caught:
        opening.standing(there, here, "the replica", "the file", discard=False)
    assert caught.value.what == (
        "the copies went separate ways after epoch 2 (02020202): the file gave up the other "
        "(1970-01-01 00:00 UTC) and went on to epoch 3 (03030303), 4 (04040404); the replica let "
        "go of the file (1970-01-01 00:00 UTC) and went on to epoch 3 (05050505)"
    )


def test_strangers_have_nothing_in_common():
    mine, other = (
        CopyRecord(each, Epoch(1, each, (each,), (each,), 1), Mark.CLEAN) for each in (HERE, THERE)
    )
    assert opening.last_common(mine.epoch, other.epoch) is None
    with pytest.raises(SplitBrain, match="no epoch that both remember"):
        opening.standing(other, mine, "there", "here", discard=False)
    assert opening.standing(other, mine, "there", "here", discard=True).discarded
