"""Descriptors that are put by are there when they are needed, and nobody else's meanwhile."""

from __future__ import annotations

import errno
import os

import pytest

from rpmem.fabric.libfabric.caller import HANDING_OVER, Caller
from rpmem.fabric.shared import door as doors
from rpmem.fabric.shared.spare import Spare
from tests.support.descriptors import few_descriptors


def count():
    return len(os.listdir("/proc/self/fd"))


def test_so_many_are_held_until_they_are_given():
    before = count()
    spare = Spare(5)
    assert (len(spare), count()) == (5, before + 5)
    spare.give()
    spare.give(2)
    assert (len(spare), count()) == (2, before + 2)
    spare.refill()
    assert (len(spare), count()) == (5, before + 5)
    spare.give(9)
    assert (len(spare), count()) == (0, before)
    spare.refill()
    spare.close()
    spare.refill()
    spare.close()
    assert (len(spare), count()) == (0, before)


def test_none_is_kept_where_there_are_too_few():
    before = count()
    with few_descriptors(3), pytest.raises(OSError, match="Too many open files") as caught:
        Spare(4)
    assert caught.value.errno == errno.EMFILE
    assert count() == before
    with few_descriptors(3):
        Spare(3).close()


def test_what_others_took_meanwhile_is_not_taken_back():
    spare = Spare(3)
    spare.give(3)
    with few_descriptors(1):
        spare.refill()
        assert len(spare) == 1
    spare.close()


def test_a_door_without_room_for_those_who_are_expected_is_not_opened():
    before = count()
    with (
        few_descriptors(1 + 10 + 3),
        pytest.raises(doors.ConnectFailed, match="Too many open") as caught,
    ):
        doors.Door("127.0.0.1", Caller, 4, HANDING_OVER)
    assert caught.value.errno == errno.EMFILE
    assert "raise its limit" in str(caught.value)
    assert count() == before
    with few_descriptors(1 + 4 + 10 + 2):
        doors.Door("127.0.0.1", Caller, 4, HANDING_OVER).close()
    assert count() == before
