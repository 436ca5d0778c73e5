"""Targets that lie to who looks: an error that says so, in bounded time and memory."""

from __future__ import annotations

import time

import pytest

from rpmem.base.target import Target
from rpmem.errors import CatalogueCorrupt, HeaderError, MalformedMessage, RangeError
from rpmem.files.attributes import MAJOR, SIGNATURE, PoolAttributes
from rpmem.pool import looking
from rpmem.pool.superblock import LAYOUT_OFFSET, Layout
from rpmem.session.looking import MOST_SETS, Looking, list_sets
from tests.support.hostile_rpmemd import command

POOL = b"pool of the test"
OURS = PoolAttributes(signature=SIGNATURE, major=MAJOR, poolset_uuid=POOL)
SEEN = {"pool_size": 1 << 22, "attributes": OURS.pack().hex(), "medium": "page"}
ROW = {"name": "a.set", "state": "clean"}
SOON_S = 20.0


def look(**shown):
    begin = time.monotonic()
    try:
        return looking.look(
            ("local:", "a.set"), timeout=10.0, command=command(shown={"Look": SEEN, **shown})
        )
    finally:
        assert time.monotonic() - begin < SOON_S


def sets(**fields):
    return list_sets("local:", timeout=10.0, command=command(shown={"List": fields}))


@pytest.mark.parametrize(
    "fields",
    [
        {"pool_size": 0},
        {"pool_size": 1 << 63},
        {"pool_size": "large"},
        {"attributes": "00"},
        {"medium": "\x1b[2J"},
        {"writer": 1},
    ],
)
def test_a_pool_that_cannot_be(fields):
    with pytest.raises(MalformedMessage):
        look(Look={**SEEN, **fields})


@pytest.mark.parametrize("data", ["", "00", "00" * 5000, "zz", None])
def test_bytes_that_were_not_asked_for(data):
    with pytest.raises(MalformedMessage):
        look(Peek={"data": data})


def test_bytes_that_are_no_pool():
    with pytest.raises(CatalogueCorrupt, match="no superblock"):
        look()


def test_a_pool_that_is_none_of_rpmem_pool():
    other = OURS.replaced(signature=b"\x1b[2Jabcd")
    with pytest.raises(HeaderError, match="signature") as caught:
        look(Look={**SEEN, "attributes": other.pack().hex()})
    assert str(caught.value).isprintable()


class _Made:
    """A session whose target has a superblock of a huge pool, and nothing else.

    Parameters
    ----------
    pool_size : int
        What the superblock says.
    """

    def __init__(self, pool_size):
        self.in_use = True
        self.loaded = 0
        self._layout = Layout.plan(pool_size, POOL).pack()

    def load(self, offset, length):
        self.loaded += length
        return self._layout if offset == LAYOUT_OFFSET else bytes(length)


def test_what_is_read_is_bounded(monkeypatch):
    monkeypatch.setattr(looking, "MOST_READ", 4096)
    made = _Made(1 << 60)
    source = looking._Bounded(made, "node a.set")
    assert len(source.load(0, 4096)) == 4096
    with pytest.raises(CatalogueCorrupt, match="more than 4096"):
        source.load(0, 1)
    assert made.loaded == 4096


def test_nothing_is_asked_for_beyond_the_pool():
    with Looking(
        Target.of("local:"), timeout=10.0, command=command(shown={"Look": SEEN})
    ) as session:
        session.look("a.set")
        assert session.load((1 << 22) - 3, 3) == bytes(3)
        with pytest.raises(RangeError):
            session.load((1 << 22) - 3, 4)
        with pytest.raises(RangeError):
            session.load(0, 1 << 62)


def test_a_list_without_an_end(monkeypatch):
    monkeypatch.setattr("rpmem.session.looking.MOST_SETS", 200)
    assert MOST_SETS > 200
    assert 200 <= len(sets(sets=[ROW] * 64, last=False)) < 200 + 64
    # Not even pages without anything on them go on for ever.
    assert sets(sets=[], last=False) == []


@pytest.mark.parametrize(
    "fields",
    [
        {"sets": [ROW] * 65, "last": True},
        {"sets": "none", "last": True},
        {"sets": [{**ROW, "name": 5}], "last": True},
        {"sets": [{**ROW, "state": "\x1b]0;title\x07"}], "last": True},
        {"sets": [{**ROW, "epoch": 10**19}], "last": True},
        {"sets": [ROW], "last": None},
    ],
)
def test_rows_that_cannot_be(fields):
    with pytest.raises(MalformedMessage):
        sets(**fields)


def test_what_rows_say_can_be_printed():
    (row,) = sets(sets=[{**ROW, "name": "\x1b[2J\n\u202ea", "reason": "\x07" * 400}], last=True)
    assert row.name.isprintable()
    assert row.reason.isprintable()
