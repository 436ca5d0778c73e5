"""What a session asks of its lanes: the initiator's wishes within the administrator's limits."""

from __future__ import annotations

import os
from contextlib import contextmanager

import pytest

from rpmem.control.messages import Open
from rpmem.errors import ProviderUnavailable
from rpmem.files.attributes import MAJOR, SIGNATURE, PoolAttributes
from rpmemd import session
from rpmemd.config import Config
from rpmemd.database import Database
from rpmemd.lane_server import NATIVE, PMDK
from rpmemd.log import Log
from rpmemd.session import Session
from rpmemd.stream import Stream

SIZE = 16 << 20
OTHER = PoolAttributes(signature=b"TEST\0\0\0\0")


@contextmanager
def asked_by(monkeypatch, tmp_path, request, *, attributes=OTHER, dialect=NATIVE, **options):
    """Yield what a session that opens a pool asks of its lanes, which are not to be had."""
    asked = {}

    def refuse(region, **wishes):
        asked.update(wishes, region_size=len(region))
        raise ProviderUnavailable("there are no lanes here")

    monkeypatch.setattr(session, "LaneServer", refuse)
    database = Database(str(tmp_path))
    if not (tmp_path / "p.set").exists():
        database.create("p.set", SIZE, attributes, parts=1).close()
    config = Config(poolset_dir=str(tmp_path), **options)
    sink = os.open(os.devnull, os.O_WRONLY)
    served = Session(
        config, Log(), Stream(sink, sink), database, address="127.0.0.1", peer="127.0.0.1"
    )
    served._machine = object()
    served._dialect = dialect
    try:
        with pytest.raises(ProviderUnavailable):
            served._serve(request)
        yield asked
    finally:
        os.close(sink)
        os.close(served._wake_read)
        os.close(served._wake_write)


def opening(**changes):
    wishes = {
        "pool_set": "p.set",
        "pool_size": 0,
        "lanes": 3,
        "providers": ("verbs", "tcp", "sockets"),
        "message_size": 8192,
    }
    return Open(**{**wishes, **changes})


def test_lanes_are_asked_for_as_the_initiator_wishes(monkeypatch, tmp_path):
    with asked_by(monkeypatch, tmp_path, opening(threads=2)) as asked:
        assert asked["lanes"] == 3
        assert asked["message_size"] == 8192
        assert asked["threads"] == 2
        assert asked["providers"] == ("verbs", "tcp", "sockets")
        assert asked["size"] >= SIZE
        assert asked["spin_s"] is None
        assert asked["address"] == "127.0.0.1"
        assert not asked["may_stage"]


def test_no_more_is_served_than_was_asked_for(monkeypatch, tmp_path):
    with asked_by(monkeypatch, tmp_path, opening(pool_size=SIZE // 2)) as asked:
        assert asked["size"] == SIZE // 2
        assert asked["region_size"] >= SIZE


@pytest.mark.parametrize(
    ("attributes", "floor", "read_floor"),
    [
        (PoolAttributes(signature=SIGNATURE, major=MAJOR), 20480, 20480),
        (PoolAttributes(signature=SIGNATURE, major=MAJOR - 1), 4096, 0),
        (OTHER, 4096, 0),
        (None, 0, 0),
    ],
    ids=["ours", "format 1", "other", "none"],
)
@pytest.mark.parametrize("dialect", [NATIVE, PMDK], ids=["native", "pmdk"])
def test_what_a_copy_keeps_for_itself_is_out_of_reach(
    monkeypatch, tmp_path, dialect, attributes, floor, read_floor
):
    with asked_by(
        monkeypatch, tmp_path, opening(), attributes=attributes, dialect=dialect
    ) as asked:
        expected = (floor, read_floor) if dialect is NATIVE else (0, 0)
        assert (asked["floor"], asked["read_floor"]) == expected


def test_what_the_administrator_says_comes_first(monkeypatch, tmp_path):
    options = {"providers": ("sockets", "tcp"), "spin_us": 250, "nthreads": 3}
    with asked_by(monkeypatch, tmp_path, opening(), **options) as asked:
        assert asked["providers"] == ("tcp", "sockets")
        assert asked["spin_s"] == pytest.approx(250e-6)
        assert asked["threads"] == 3
