"""Both sides of a Digest may be hostile: an error that says so, and nothing held."""

from __future__ import annotations

import json
import os
import random

import pytest

from rpmem.control.framing import encode_frame
from rpmem.control.messages import BLOCK_UNIT, DIGEST, FEATURES, MAX_UNITS, Digest, Kind
from rpmem.errors import MalformedMessage, RangeError, RpmemError, UnexpectedMessage
from rpmem.files.attributes import MAJOR, SIGNATURE, PoolAttributes
from tests.support.hostile_rpmemd import command
from tests.support.raw_session import RawSession, resident
from tests.support.without import is_built

if not is_built("rpmem.memory.changes.unit_digests"):
    pytest.skip("rpmem.memory.changes.unit_digests is not built here", allow_module_level=True)

SIZE = 8 << 20
KEY = bytes(range(32))
OURS = PoolAttributes(signature=SIGNATURE, major=MAJOR, poolset_uuid=b"pool of the test")
OPTIONS = {"size": SIZE, "attributes": OURS, "features": FEATURES}


# --- hostile targets --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"digests": None},
        {"digests": 5},
        {"digests": ""},
        {"digests": "A" * 16},
        {"digests": "A" * 48},
        {"digests": "A" * 31},
        {"digests": "\x1b[2J" + "A" * 27},
        {"digests": ["A" * 16] * 2},
        {"digests": "A" * 90_000},
    ],
    ids=lambda fields: str(fields)[:30],
)
def test_answers_that_are_none(tmp_path, fields):
    options = {**OPTIONS, "command": command(digests=fields)}
    before = resident("self")
    with RawSession(tmp_path, **options) as session:
        asked = Digest(offset=32768, length=8000, unit=4096, key=KEY)
        with pytest.raises(MalformedMessage) as caught:
            session.channel.digests(asked, lambda: None)
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 500
        assert isinstance(session.failure(), MalformedMessage)
    assert resident("self") - before < 32 << 20


def test_an_answer_of_the_right_form_is_taken(tmp_path):
    """The other side of it: the same target, and an honest answer."""
    options = {**OPTIONS, "command": command(digests={"digests": "A" * 32})}
    with RawSession(tmp_path, **options) as session:
        asked = Digest(offset=32768, length=8000, unit=4096, key=KEY)
        assert session.channel.digests(asked, lambda: None).digests == bytes(24)


# --- hostile initiators -----------------------------------------------------------------------


def test_requests_at_random_are_answered_or_refused(tmp_path):
    chance = random.Random(7)
    with RawSession(tmp_path, **OPTIONS) as session:
        before = resident(session.pid)
        answered = 0
        for _ in range(300):
            offset = chance.choice(
                (0, 1, 4096, 20479, 20480, SIZE - 1, SIZE, 1 << 40, (1 << 63) - 1)
            )
            unit = chance.choice((4096, 4097, 65536, BLOCK_UNIT))
            most = MAX_UNITS * unit
            length = min(most, chance.choice((1, 4095, SIZE - 20480, SIZE, 1 << 32, most)))
            asked = Digest(offset=offset, length=length, unit=unit, key=os.urandom(32))
            fits = offset >= 20480 and offset + length <= SIZE
            if fits:
                found = session.channel.digests(asked, lambda: None).digests
                assert len(found) == 12 * asked.units
                answered += 1
            else:
                with pytest.raises(RangeError):
                    session.channel.digests(asked, lambda: None)
        assert 10 < answered < 290
        assert resident(session.pid) - before < 16 << 20


@pytest.mark.parametrize(
    "change",
    [
        {"length": MAX_UNITS * 4096 + 1},
        {"length": 0},
        {"offset": -1},
        {"unit": 1},
        {"unit": 1 << 40},
        {"key": "00"},
        {"key": "00" * 1000},
        {"offset": 1e300},
    ],
    ids=repr,
)
def test_requests_out_of_bounds_end_the_session(tmp_path, change):
    with RawSession(tmp_path, **OPTIONS) as session:
        fields = {"offset": 32768, "length": 4096, "unit": 4096, "key": KEY.hex(), **change}
        payload = json.dumps(fields).encode()
        session.transport.send(encode_frame(Kind.DIGEST, 3, payload, limit=1 << 16), 10.0)
        assert isinstance(session.failure(), MalformedMessage)


def test_a_request_without_the_feature_ends_the_session(tmp_path):
    others = tuple(each for each in FEATURES if each != DIGEST)
    with RawSession(tmp_path, **{**OPTIONS, "features": others}) as session:
        asked = Digest(offset=32768, length=4096, unit=4096, key=KEY)
        session.transport.send(asked.encode(3, limit=1 << 16), 10.0)
        error = session.failure()
        assert isinstance(error, UnexpectedMessage)
        assert "needs the feature digest" in str(error)


def test_two_at_once_end_the_session(tmp_path):
    with RawSession(tmp_path, **OPTIONS) as session:
        asked = Digest(offset=32768, length=SIZE - 32768, unit=4096, key=KEY)
        frames = b"".join(asked.encode(serial, limit=1 << 16) for serial in (3, 4))
        session.transport.send(frames, 10.0)
        assert isinstance(session.failure(), RpmemError)
