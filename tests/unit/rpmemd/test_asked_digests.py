"""What a target does before it says what its pool holds: make it durable."""

from __future__ import annotations

import errno
import os
import signal
from types import SimpleNamespace

import pytest

from rpmem.base.pool_format import HEADER_SIZE, POOL_FLOOR
from rpmem.control.messages import FEATURES, Digest
from rpmem.errors import FlushFailed, RangeError
from rpmem.files.attributes import MAJOR, SIGNATURE, PoolAttributes
from rpmem.files.poolfiles import PoolFiles
from rpmem.files.poolset import Part, PoolSet
from rpmem.memory.region import Region
from tests.support import faulty_rpmemd
from tests.support.media import image_of, wait_unlocked
from tests.support.raw_session import RawSession
from tests.support.recorded import Recorded
from tests.support.targets import ATTRIBUTES
from tests.support.without import is_built

if not is_built("rpmem.memory.changes.unit_digests"):
    pytest.skip("rpmem.memory.changes.unit_digests is not built here", allow_module_level=True)

from rpmem.memory.changes.unit_digests import unit_digests
from rpmemd.hashing import digests_of

SIZE = 2 << 20
KEY = bytes(range(32))
OURS = PoolAttributes(signature=SIGNATURE, major=MAJOR, poolset_uuid=b"pool of the test")


def asking(offset, length, unit=4096):
    return Digest(offset=offset, length=length, unit=unit, key=KEY)


@pytest.fixture(params=["page", "pmem"])
def medium(request):
    with Recorded(request.param).installed() as recorded:
        yield recorded


@pytest.fixture
def pool(medium, tmp_path):
    made = PoolFiles.create(PoolSet((Part(SIZE, str(tmp_path / "part")),)), attributes=ATTRIBUTES)
    medium.events.clear()
    yield made
    made.close()


def test_what_is_answered_for_is_durable_by_then(medium, pool, tmp_path):
    content = os.urandom(3 * 4096)
    pool.region.write(8192, content)
    assert content not in (tmp_path / "part").read_bytes()
    found = digests_of(pool, asking(8192, len(content)), floor=0, size=SIZE).digests
    assert medium.covers(8192, len(content))
    assert (tmp_path / "part").read_bytes()[8192 : 8192 + len(content)] == content
    same = Region.from_buffer(bytearray(content))
    assert found == unit_digests(same, 0, len(content), 4096, KEY)


def test_nothing_is_said_of_what_the_medium_refuses(medium, pool):
    medium.refuses = lambda event: errno.EIO
    for _ in range(2):
        with pytest.raises(FlushFailed):
            digests_of(pool, asking(8192, 4096), floor=0, size=SIZE)
        medium.refuses = None  # once is for good


@pytest.mark.parametrize(
    ("offset", "length", "fits"),
    [
        (POOL_FLOOR, SIZE - POOL_FLOOR, True),
        (SIZE - 1, 1, True),
        (POOL_FLOOR - 1, 4096, False),
        (0, SIZE, False),
        (0, 1, False),
        (SIZE - 1, 2, False),
        (SIZE, 1, False),
        ((1 << 63) - 1, 1 << 20, False),
    ],
)
def test_bounds(offset, length, fits):
    pool = SimpleNamespace(region=Region.anonymous(SIZE + 8192))
    if fits:
        assert digests_of(pool, asking(offset, length), floor=POOL_FLOOR, size=SIZE)
    else:
        with pytest.raises(RangeError, match="those that an initiator may read"):
            digests_of(pool, asking(offset, length), floor=POOL_FLOOR, size=SIZE)


# --- a whole daemon ---------------------------------------------------------------------------


def digests(session, offset, length):
    return session.channel.digests(asking(offset, length), lambda: None).digests


@pytest.mark.parametrize(
    ("attributes", "floor"), [(OURS, POOL_FLOOR), (ATTRIBUTES, 0)], ids=["ours", "other"]
)
def test_what_a_copy_keeps_for_itself_is_not_compared(tmp_path, attributes, floor):
    with RawSession(tmp_path, size=SIZE, attributes=attributes, features=FEATURES) as session:
        for _ in range(2):
            assert len(digests(session, floor, SIZE - floor)) == 12 * -(-(SIZE - floor) // 4096)
            with pytest.raises(RangeError):
                digests(session, floor, SIZE - floor + 1)
            if floor:
                with pytest.raises(RangeError):
                    digests(session, HEADER_SIZE, 4096)
        assert session.alive


def visible_only(tmp_path, breakage):
    """Let bytes reach a target's memory only, ask for digests, and cut the power.

    Returns the bytes that were written, and those on the medium.
    """
    command = faulty_rpmemd.command(breakage=breakage)
    content = os.urandom(4096)
    options = {"size": SIZE, "attributes": OURS, "features": FEATURES, "command": command}
    with RawSession(tmp_path, **options) as session:
        lane = session.lane()
        session.write(lane, content, 1 << 20)
        # A READ behind the WRITE shows that it has arrived.
        assert session.read(lane, 1 << 20, 4096) == content
        assert image_of(tmp_path / "a.set")[1 << 20 : (1 << 20) + 4096] == bytes(4096)
        same = Region.from_buffer(bytearray(content))
        assert digests(session, 1 << 20, 4096) == unit_digests(same, 0, 4096, 4096, KEY)
        os.kill(session.pid, signal.SIGKILL)
        wait_unlocked(tmp_path / "a.set")
        return content, image_of(tmp_path / "a.set")[1 << 20 : (1 << 20) + 4096]


def test_what_was_visible_only_survives_once_it_was_found_equal(tmp_path):
    written, kept = visible_only(tmp_path, 0)
    assert kept == written


def test_a_target_that_does_not_flush_first_is_found_out(tmp_path):
    _, kept = visible_only(tmp_path, faulty_rpmemd.SKIP_DIGEST_FLUSH)
    assert kept == bytes(4096)
