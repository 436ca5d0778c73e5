"""rpmem info, list and ls: what is shown of pools here and on targets, and that nothing changes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import rpmem
from rpmem.errors import (
    CatalogueCorrupt,
    HeaderError,
    LaunchFailed,
    PoolSetNotFound,
    TargetSyntaxError,
    VersionMismatch,
)

SIZE = "4MiB"
HEX = set("0123456789abcdef")


class Ended:
    """What one run of the command printed, and its exit status."""

    def __init__(self, *arguments, **environment):
        done = subprocess.run(
            [sys.executable, "-m", "rpmem.cli", *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=90,
            env={**os.environ, "COLUMNS": "80", **environment},
        )
        self.status, self.out, self.err = done.returncode, done.stdout, done.stderr

    @property
    def json(self):
        """All lines of stdout, parsed."""
        assert self.status == 0, self.err
        assert self.out.isascii()
        return [json.loads(line) for line in self.out.splitlines()]


def info(*arguments):
    """Return the one object that ``info --json`` prints."""
    (shown,) = Ended("info", *arguments, "--json").json
    return shown


def refused(kind, *arguments, **environment):
    """Run what has to fail: one line, no traceback, the status of its kind; return the line."""
    ended = Ended(*arguments, **environment)
    assert (ended.status, ended.out) == (kind.exit_status, ""), ended.err
    (line,) = ended.err.splitlines()
    assert line.startswith("rpmem: ")
    return line


def contents(*folders):
    """Everything about the files there that a look must not change."""
    found = {}
    for path in sorted(path for folder in folders for path in Path(folder).rglob("*")):
        about = path.lstat()
        content = path.read_bytes() if path.is_file() else None
        found[str(path)] = (content, about.st_mtime_ns, about.st_ctime_ns, about.st_blocks)
    return found


@pytest.fixture
def sets(tmp_path):
    folder = tmp_path / "sets"
    folder.mkdir()
    return folder


@pytest.fixture
def target(sets):
    return f"local:{sets}"


@pytest.fixture
def local(tmp_path):
    return tmp_path / "pool"


def make(local, *replicas):
    with rpmem.Pool.create(local, SIZE, replicas, parts=2) as pool:
        pool.array("matrix", (3, 5), "f4", "F")[:] = 1
        pool.array("tab", 2, [("x", "u1")])
        pool.persist()


# --- what is shown ---


@pytest.mark.parametrize("over", ["local", "ssh"])
def test_both_copies_tell_the_same(over, request, local, sets, target):
    if over == "ssh":
        sshd = request.getfixturevalue("sshd")
        target = request.getfixturevalue("ssh_node")
        sets = sshd.home
    make(local, f"{target} a.set")
    before = contents(sets), local.read_bytes(), local.stat()
    here, there = info(local), info(target, "a.set")
    assert [row["name"] for row in Ended("list", target, "a.set", "--json").json] == here["names"]
    rows = {row["name"]: row for row in Ended("ls", target, "--json").json}
    assert (contents(sets), local.read_bytes()) == before[:2]
    assert local.stat().st_mtime_ns == before[2].st_mtime_ns
    own = {"pool", "copy", "medium", "replicas"}
    same = here.keys() - own
    assert {name: here[name] for name in same} == {name: there[name] for name in same}
    assert (here["pool"], there["pool"]) == (str(local), f"{target} a.set")
    assert here["epoch"]["members"] == [here["copy"], there["copy"]]
    assert here["epoch"]["in_sync"] == here["epoch"]["members"]
    assert (here["names"], here["arrays"]) == (["matrix", "tab"], 2)
    assert (here["state"], here["mark"], here["epoch"]["number"]) == ("clean", "clean", 1)
    assert rows["a.set"]["state"] == "clean"
    assert rows["a.set"]["copy"] == there["copy"]
    assert rows["a.set"]["epoch"] == {
        "number": 1,
        "identity": there["epoch"]["identity"],
    }


def test_the_keys_of_the_json_and_their_kinds(local, target):
    make(local, f"{target} a.set")
    with rpmem.Pool.open(local, f"{target} a.set") as pool:
        pool.detach(0)
    shown = info(local)
    assert list(shown) == [
        "pool",
        "uuid",
        "size",
        "free",
        "arrays",
        "names",
        "medium",
        "state",
        "copy",
        "mark",
        "epoch",
        "prepared",
        "replicas",
    ]
    epoch = shown["epoch"]
    assert list(epoch) == [
        "number",
        "identity",
        "members",
        "in_sync",
        "quorum",
        "history",
        "parted",
    ]
    ids = [shown["uuid"], shown["copy"], epoch["identity"], *epoch["members"]]
    ids += [each["identity"] for each in epoch["history"]]
    assert all(len(each) == 32 and HEX.issuperset(each) for each in ids)
    (parted,) = epoch["parted"]
    assert list(parted) == ["copy", "given_up", "last", "when"]
    assert abs(parted["when"] - time.time()) < 600
    (row,) = Ended("ls", target, "--json").json
    assert list(row) == ["name", "size", "state", "epoch", "copy", "mark", "reason"]


def test_the_history_and_who_parted(local, sets, target):
    make(local, f"{target} a.set", f"{target} b.set")
    a, b = info(target, "a.set")["copy"], info(target, "b.set")["copy"]
    first = info(local)["epoch"]
    with rpmem.Pool.open(local, [f"{target} a.set", f"{target} b.set"]) as pool:
        pool.detach(1)  # it lives: it leaves in order
        second = {
            "number": pool.epoch.history[0].number,
            "identity": pool.epoch.history[0].identity.hex(),
        }
    rpmem.Pool.open(local, []).close()  # a is given up
    shown = info(local)["epoch"]
    assert [each["number"] for each in shown["history"]] == [3, 2, 1]
    assert shown["history"][2]["identity"] == first["identity"]
    parted = {each["copy"]: each for each in shown["parted"]}
    assert {copy: each["given_up"] for copy, each in parted.items()} == {a: True, b: False}
    assert parted[b]["last"] == second
    assert info(target, "b.set")["mark"] == "left"
    states = {row["name"]: row["state"] for row in Ended("ls", target, "--json").json}
    assert states == {"a.set": "clean", "b.set": "left"}
    table = Ended("info", local).out
    for words in (a, b, "given up on 20", "left on 20", first["identity"], "this copy"):
        assert words in table
    assert "took it out in order" in " ".join(Ended("info", target, "b.set").out.split())


def test_tables_for_people(local, target):
    make(local, f"{target} a.set")
    words = " ".join(Ended("ls", target).out.split())
    assert "name size epoch state" in words
    assert "a.set 4.0 MiB 1 clean" in words
    assert "matrix float32 (3, 5) F 60 B" in " ".join(Ended("list", target, "a.set").out.split())
    assert Ended("list", target, "a.set").out == Ended("list", local).out


def test_a_directory_without_pool_sets(target):
    ended = Ended("ls", target)
    assert (ended.status, ended.out) == (0, "no pool sets\n")
    assert Ended("ls", target, "--json").out == ""


def test_a_pool_that_is_one_file_can_be_looked_at_by_name(local, tmp_path):
    make(local)
    assert info(f"local:{tmp_path}", local.name)["names"] == ["matrix", "tab"]
    (row,) = Ended("ls", f"local:{tmp_path}", "--json").json
    assert (row["name"], row["state"]) == ("pool", "clean")


# --- beside others ---

WRITER = """
import sys
import rpmem
with rpmem.Pool.open(sys.argv[1], sys.argv[2]) as pool:
    print("ready", flush=True)
    number = 0
    while not select.select([sys.stdin], [], [], 0)[0]:
        number += 1
        made = pool.array(f"n{number}", 1000)
        made[:] = number
        pool.persist(made)
        pool.persist(pool["matrix"])
        del made
        if number > 5:
            del pool[f"n{number - 5}"]
    print(number, flush=True)
"""


def test_a_look_beside_a_writer_is_whole_and_disturbs_nobody(local, target):
    make(local, f"{target} a.set")
    writer = subprocess.Popen(
        [sys.executable, "-c", "import select" + WRITER, str(local), f"{target} a.set"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert writer.stdout.readline() == "ready\n"
        seen = []
        for _ in range(4):
            shown = info(target, "a.set")
            assert (shown["state"], shown["mark"]) == ("in-use", "begun")
            assert shown["epoch"]["number"] == 2
            assert shown["names"][:2] == ["matrix", "tab"]
            # One name after the other, none left out: what was read is one moment.
            numbers = [int(name[1:]) for name in shown["names"][2:]]
            assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
            assert len(numbers) <= 6
            seen.append(numbers[-1])
            (row,) = Ended("ls", target, "--json").json
            assert row["state"] == "in-use"
        assert seen == sorted(seen)
        assert seen[0] < seen[-1]
        out, _ = writer.communicate("stop\n", timeout=60)
    finally:
        writer.kill()
        writer.wait()
    assert writer.returncode == 0
    assert int(out) >= seen[-1]
    assert info(target, "a.set")["state"] == "clean"


KILLED = """
import os, signal, sys
import rpmem
pool = rpmem.Pool.open(sys.argv[1], sys.argv[2])
os.kill(pool.replicas[0].peer.pid, signal.SIGKILL)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_crash_left_is_shown_and_stays(local, sets, target):
    make(local, f"{target} a.set")
    subprocess.run([sys.executable, "-c", KILLED, str(local), f"{target} a.set"], check=False)
    before = contents(sets)
    deadline = time.monotonic() + 20
    while info(target, "a.set")["state"] == "in-use":  # its rpmemd is ending
        assert time.monotonic() < deadline
    shown = info(target, "a.set")
    assert (shown["state"], shown["epoch"]["number"]) == ("not-closed", 2)
    assert info(local)["state"] == "not-closed"
    assert "did not close it" in Ended("info", target, "a.set").out
    assert contents(sets) == before
    # The control: who opens it changes it.
    rpmem.Pool.open(local, f"{target} a.set").close()
    assert contents(sets) != before


# --- what cannot be shown ---


def test_what_is_not_there(local, target, tmp_path):
    make(local, f"{target} a.set")
    for verb in ("info", "list"):
        assert "none.set" in refused(PoolSetNotFound, verb, target, "none.set")
        refused(PoolSetNotFound, verb, tmp_path / "none")
        refused(TargetSyntaxError, verb, "bad target", "a.set")
    assert refused(PoolSetNotFound, "ls", f"local:{tmp_path}/none")
    refused(TargetSyntaxError, "ls", "bad target")


def test_what_rpmem_pool_did_not_make(target, sets):
    rpmem.create(target, "low.set", bytearray(4 << 20), parts=1).close()
    assert "not a pool" in refused(CatalogueCorrupt, "info", target, "low.set")
    attributes = rpmem.PoolAttributes(signature=b"OTHERONE", major=1)
    rpmem.create(target, "o.set", bytearray(4 << 20), attributes=attributes, parts=1).close()
    assert "OTHERONE" in refused(HeaderError, "list", target, "o.set")
    states = {row["name"]: row["state"] for row in Ended("ls", target, "--json").json}
    assert states == {"low.set": "foreign", "o.set": "foreign"}


@pytest.mark.parametrize(
    ("place", "kind", "word"),
    [
        (4096, CatalogueCorrupt, "record"),
        (20480 + 16, CatalogueCorrupt, "superblock"),
        (100, HeaderError, "checksum"),
    ],
    ids=["record", "superblock", "header"],
)
def test_damage_is_named(local, sets, target, place, kind, word):
    make(local, f"{target} a.set")
    with open(sets / "a.set.part0", "r+b") as part:
        part.seek(place)
        part.write(b"rot")
    before = contents(sets)
    line = refused(kind, "info", target, "a.set")
    assert word in line
    assert "a.set" in line
    assert contents(sets) == before


OLD = """
import os
os.write(1, bytes(4))
os.read(0, 1 << 16)
os.write(1, (71).to_bytes(4, "little"))
"""


@pytest.mark.parametrize("arguments", [("info", "node", "a.set"), ("ls", "node")])
def test_pmdks_rpmemd_has_no_such_thing(arguments, tmp_path):
    """It answers our Hello with a second status word."""
    ssh = tmp_path / "ssh"
    ssh.write_text(f"#!{sys.executable}\n{OLD}")
    ssh.chmod(0o700)
    line = refused(VersionMismatch, *arguments, RPMEM_SSH=str(ssh), RPMEM_LAUNCHER="openssh")
    assert "PMDK's rpmemd" in line
    assert "Install rpmem" in line


def test_a_target_without_rpmemd(tmp_path):
    ssh = tmp_path / "ssh"
    ssh.write_text("#!/bin/sh\nexit 3\n")
    ssh.chmod(0o700)
    environment = {"RPMEM_SSH": str(ssh), "RPMEM_LAUNCHER": "openssh"}
    refused(LaunchFailed, "ls", "node", **environment)


def test_a_confined_key_sees_its_directory(sshd, tmp_path):
    """The forced command needs no other option."""
    folder = sshd.home / "confined"
    folder.mkdir(exist_ok=True)
    make(tmp_path / "p", f"local:{folder} c.set")
    rpmemd = "rpmemd --forced-command --poolset-dir $HOME/confined"
    environment = {"RPMEM_CMD": rpmemd}
    ended = Ended("ls", "node2", "--json", **environment)
    assert [row["name"] for row in ended.json] == ["c.set"]
    ended = Ended("info", "node2", "c.set", "--json", **environment)
    assert ended.json[0]["names"] == ["matrix", "tab"]
    refused(PoolSetNotFound, "info", "node2", "a.set", **environment)
