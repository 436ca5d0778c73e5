"""What a copy of a pool is, as JSON and as a table: every kind of record."""

from __future__ import annotations

import json
import sys

import pytest
from rich.console import Console

from rpmem.cli.shown import as_json, as_table
from rpmem.epochs.record import CopyRecord, Epoch, Mark, Parting, Stamp
from rpmem.pool.catalogue.entries import Entry
from rpmem.pool.looking import Facts

HERE, THERE, GONE, LOST = b"h" * 16, b"t" * 16, b"g" * 16, b"l" * 16


def stamp(number):
    return Stamp(number, number.to_bytes(16, "big"))


def an_epoch(number=20, *, when_s=1_700_000_000, history=12):
    return Epoch(
        *stamp(number),
        (HERE, THERE),
        (HERE,),
        2,
        tuple(stamp(number - each) for each in range(1, history + 1)),
        (Parting(GONE, stamp(3), False, when_s), Parting(LOST, stamp(4), True, when_s)),
    )


def facts(record, *, in_use=False, pool_id=b"p" * 16):
    entry = Entry("tab", 1 << 20, 8, (2,), "C", "<f4")
    return Facts("node2 a.set", pool_id, 1 << 22, 1 << 21, "page", record, in_use, {"tab": entry})


def text_of(what):
    console = Console(width=1000, no_color=True)
    with console.capture() as captured:
        console.print(as_table(what))
    return [" ".join(line.split()) for line in captured.get().splitlines()]


def test_all_of_the_json():
    prepared = an_epoch(21, history=0)
    record = CopyRecord(HERE, an_epoch(history=2), Mark.BEGUN, prepared)
    shown = as_json(facts(record, in_use=True), ["node2 a.set"])
    assert json.loads(json.dumps(shown)) == shown
    parted = [
        {
            "copy": b"g".hex() * 16,
            "given_up": False,
            "last": {"number": 3, "identity": f"{3:032x}"},
            "when": 1_700_000_000,
        },
        {
            "copy": b"l".hex() * 16,
            "given_up": True,
            "last": {"number": 4, "identity": f"{4:032x}"},
            "when": 1_700_000_000,
        },
    ]
    here, there = b"h".hex() * 16, b"t".hex() * 16
    members = {"members": [here, there], "in_sync": [here], "quorum": 2}
    assert shown == {
        "pool": "node2 a.set",
        "uuid": b"p".hex() * 16,
        "size": 1 << 22,
        "free": 1 << 21,
        "arrays": 1,
        "names": ["tab"],
        "medium": "page",
        "state": "in-use",
        "copy": here,
        "mark": "begun",
        "epoch": {
            "number": 20,
            "identity": f"{20:032x}",
            **members,
            "history": [
                {"number": 19, "identity": f"{19:032x}"},
                {"number": 18, "identity": f"{18:032x}"},
            ],
            "parted": parted,
        },
        "prepared": {
            "number": 21,
            "identity": f"{21:032x}",
            **members,
            "history": [],
            "parted": parted,
        },
        "replicas": ["node2 a.set"],
    }


def test_what_is_not_there_is_null():
    shown = as_json(facts(CopyRecord(HERE, an_epoch(), Mark.CLEAN), pool_id=None))
    assert (shown["uuid"], shown["prepared"], shown["replicas"]) == (None, None, [])


@pytest.mark.parametrize(
    ("mark", "state", "words"),
    [
        (Mark.BEGUN, "not-closed", "did not close it"),
        (Mark.CLEAN, "clean", "closed it"),
        (Mark.LEFT, "left", "took it out in order"),
        (Mark.JOINING, "joining", "it is a mixture"),
    ],
)
def test_each_mark_and_a_writer_above_it(mark, state, words):
    record = CopyRecord(HERE, an_epoch(), mark)
    assert as_json(facts(record))["state"] == state
    assert as_json(facts(record))["mark"] == mark.name.lower()
    assert any(line.startswith("last writer") and words in line for line in text_of(facts(record)))
    used = facts(record, in_use=True)
    assert as_json(used)["state"] == "in-use"
    assert "last writer has it open" in text_of(used)


def test_the_table_tells_who_is_who():
    lines = text_of(facts(CopyRecord(HERE, an_epoch(), Mark.BEGUN, an_epoch(21))))
    assert f"member {HERE.hex()}, this copy" in lines
    assert f"member {THERE.hex()}, not in sync" in lines
    assert f"parted {GONE.hex()} left on 2023-11-14 22:13:20 UTC, after 3 ({3:032x})" in lines
    assert f"parted {LOST.hex()} given up on 2023-11-14 22:13:20 UTC, after 4 ({4:032x})" in lines
    assert f"offered 21 ({21:032x}), not known to have begun" in lines
    assert sum(line.startswith("history") for line in lines) == 9
    assert "history and 4 more, see --json" in lines


@pytest.mark.parametrize("when_s", [0, (1 << 63) - 1, sys.maxsize])
def test_a_time_that_no_calendar_has(when_s):
    lines = text_of(facts(CopyRecord(HERE, an_epoch(when_s=when_s), Mark.CLEAN)))
    assert any(str(when_s) in line or "1970-01-01" in line for line in lines)
