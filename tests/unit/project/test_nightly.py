"""The nightly run: parts in rounds, figures kept, and no round lost or done twice."""

from __future__ import annotations

import json
import os

import pytest

from tests.nightly import Part
from tests.nightly.parts import LIMIT_S, PARTS
from tests.nightly.run import main

#: Writes its seed down, and fails where a file says so.
COUNTS = """
echo $RPMEM_TEST_SEED >> FOLDER/seeds
echo '{"rolls": 2}' > $RPMEM_NIGHTLY_FIGURES
test {seed} != $(cat FOLDER/bad)
"""


@pytest.fixture
def part(tmp_path):
    (tmp_path / "bad").write_text("none")
    return Part("dice", "they roll", COUNTS.replace("FOLDER", str(tmp_path)), rounds=4, minutes=1)


@pytest.fixture
def night(tmp_path, part):
    def run(*words):
        status = main(["dice", "--out", str(tmp_path / "out"), *words], [part])
        return status, json.loads((tmp_path / "out" / "dice.json").read_text())

    return run


def seeds(tmp_path):
    return [int(line) for line in (tmp_path / "seeds").read_text().split()]


def test_every_part_is_whole():
    names = [part.name for part in PARTS]
    assert len(set(names)) == len(names) >= 4
    for part in PARTS:
        assert part.rounds >= 1
        assert part.minutes * 60 <= LIMIT_S
        assert part.rounds == 1 or "{seed}" in part.command or "{pytest}" in part.command


def test_rounds_count_seeds_up_and_figures_are_summed(night, tmp_path):
    status, record = night("--seed", "7")
    assert (status, record["result"], record["done"]) == (0, "passed", 4)
    assert seeds(tmp_path) == [7, 8, 9, 10]
    assert record["counts"] == {"rolls": 8}
    assert record["seed"] == 7
    assert record["begun"] <= record["ended"]
    assert record["seconds"] > 0
    assert record["proves"] == "they roll"


def test_one_round_that_fails_fails_the_part(night, tmp_path):
    (tmp_path / "bad").write_text("8")
    status, record = night("--seed", "7")
    assert (status, record["result"], record["done"]) == (1, "failed", 4)
    (failed,) = record["failed"]
    assert (failed["seed"], failed["status"]) == (8, 1)
    assert seeds(tmp_path) == [7, 8, 9, 10]


def test_what_is_not_done_goes_on_with_the_next_seed(night, tmp_path):
    status, record = night("--seed", "7", "--limit", "0")
    assert (status, record["result"], record["done"]) == (1, "unfinished", 0)
    status, record = night()
    assert (status, record["result"], record["done"], record["seed"]) == (0, "passed", 4, 7)
    assert seeds(tmp_path) == [7, 8, 9, 10]
    # Done: the next run draws other seeds.
    assert night()[1]["seed"] != 7
    assert len(seeds(tmp_path)) == 8


def test_a_round_that_takes_too_long_is_ended_and_not_counted(tmp_path):
    slow = Part("slow", "patience", f"echo $$ {{resume}} > {tmp_path}/pid; sleep 600", 2, 1)
    assert main(["slow", "--out", str(tmp_path), "--limit", "1"], [slow]) == 1
    record = json.loads((tmp_path / "slow.json").read_text())
    assert (record["result"], record["done"]) == ("unfinished", 0)
    (pid,) = (tmp_path / "pid").read_text().split()
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid), 0)
    # It is told so when it is run again.
    assert main(["slow", "--out", str(tmp_path), "--limit", "1"], [slow]) == 1
    assert (tmp_path / "pid").read_text().split()[1:] == ["--resume"]


def test_figures_of_pytest(tmp_path):
    test = tmp_path / "test_it.py"
    test.write_text(
        "def test_a(record_property): record_property('kills', 3)\n"
        "def test_b(record_property): record_property('kills', 4); assert 0\n"
    )
    command = f"{{pytest}} -p no:cacheprovider -c /dev/null --rootdir {tmp_path} {test}"
    part = Part("it", "sums", command, rounds=2, minutes=1)
    assert main(["it", "--out", str(tmp_path / "out")], [part]) == 1
    record = json.loads((tmp_path / "out" / "it.json").read_text())
    assert record["counts"]["kills"] == 14
    assert (record["counts"]["tests"], record["counts"]["failures"]) == (4, 2)
    assert len(record["failed"]) == 2


def test_an_unknown_part_is_named(capsys):
    assert main(["nothing"]) == 2
    assert "nothing" in capsys.readouterr().out


def test_the_list(capsys):
    assert main(["--list"]) == 0
    said = capsys.readouterr().out
    assert [line.split()[0] for line in said.splitlines()] == [part.name for part in PARTS]
