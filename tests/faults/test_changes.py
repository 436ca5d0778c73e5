"""Random stores of every kind by threads that share pages: `persist()` never misses a page.

`python -m tests.support.changes` makes more of them; `make nightly PART=changes` makes 100,000 in
each mode.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from pathlib import Path
from unittest.mock import patch

import pytest

from rpmem.memory.changes.pageset import PageSet
from rpmem.pool.tracking.digested import Digested
from tests.support import changes, changes_round, seeds
from tests.support.changes_use import Missed, Plan

STORES = 2500


@pytest.fixture(autouse=True)
def _memory() -> None:
    if not os.access(changes.MEMORY, os.W_OK):
        pytest.skip(f"{changes.MEMORY} cannot be written to")


def need(mode: str) -> None:
    if reason := changes.works(mode):
        pytest.skip(f"tracking={mode!r}: {reason}")


@pytest.mark.alone
@pytest.mark.timeout(300)
@pytest.mark.parametrize("mode", changes.MODES)
def test_no_page_is_missed(mode: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    need(mode)
    counts = changes.run(seeds.first(1), STORES, mode, tmp_path)
    with capsys.disabled():
        print(f"\n{mode}, {changes.swap()}")
        for what, number in sorted(counts.items()):
            print(f"{number:10d} {what}")
    assert changes.never(counts) == []
    assert counts["stores"] >= STORES


# --- the checks themselves --------------------------------------------------------------------


@pytest.mark.parametrize("place", ["file", "shared buffer"])
def test_a_look_that_misses_a_page_now_and_then_is_noticed(tmpfs: Path, place: str):
    need("digest")
    chance = random.Random(1)
    look = Digested.look

    def careless(self: Digested, pages: PageSet, offset: int, length: int) -> None:
        look(self, pages, offset, length)
        if chance.random() < 0.5:
            pages.clear()

    plan = Plan("a control", place, "digest", 2000)
    with patch.object(Digested, "look", careless), pytest.raises(Missed, match=r"differ|acknowl"):
        changes_round.run(plan, tmpfs / "round", Counter())
