"""The rpmem command as its users meet it: output, messages, exit statuses."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest

import rpmem
from rpmem.errors import (
    DaemonMissing,
    HeaderError,
    HostUnknown,
    NotProvenNewest,
    PoolSetExists,
    PoolSetNotFound,
    ReplicaLost,
    StaleReplica,
    TargetSyntaxError,
    UsageError,
)

SIZE = "4MiB"
VERBS = [
    "create", "open", "info", "list", "ls", "sync", "attach", "restore", "verify", "remove",
    "check", "demo",
]  # fmt: skip


class Ended:
    """What one run of the command printed, and its exit status."""

    def __init__(self, arguments, cwd, *, program=("-m", "rpmem.cli"), **environment):
        done = subprocess.run(
            [sys.executable, *program, *map(str, arguments)],
            capture_output=True,
            text=True,
            cwd=cwd,
            timeout=90,
            env={**os.environ, "COLUMNS": "80", **environment},
        )
        self.status, self.out, self.err = done.returncode, done.stdout, done.stderr

    @property
    def text(self):
        """Stdout with all runs of blanks and line ends as one blank."""
        return " ".join(self.out.split())


@pytest.fixture
def sets(tmp_path):
    directory = tmp_path / "sets"
    directory.mkdir()
    return directory


@pytest.fixture
def target(sets):
    return f"local:{sets}"


@pytest.fixture
def run(tmp_path):
    return lambda *arguments, **environment: Ended(arguments, tmp_path, **environment)


def check_error(ended, kind, *words):
    """One message on stderr, no traceback, and the status of the kind of error."""
    assert ended.status == kind.exit_status, ended.err
    assert ended.err.startswith("rpmem: ")
    assert "Traceback" not in ended.err + ended.out
    assert len(ended.err.splitlines()) == 1
    for word in words:
        assert word in ended.err


# --- help ---


def test_every_verb_has_help(run):
    ended = run("--help")
    assert ended.status == 0
    listed = ended.out.partition("\nCommands:\n")[2]
    assert re.findall(r"^  ([a-z]+) +\S", listed, re.MULTILINE) == VERBS
    for verb in VERBS:
        of_verb = run(verb, "--help")
        assert of_verb.status == 0
        assert f"rpmem {verb}" in of_verb.out
        assert max(map(len, of_verb.out.splitlines())) <= 80


def test_the_command_starts_light():
    code = "import sys, rpmem.cli; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert set(done.stdout.split()).isdisjoint({"numpy", "paramiko", "rich", "matplotlib"})


def test_usage_errors(run):
    # Without arguments there is help: a success to click 8.1, a usage error to 8.2.
    assert run().status in (0, 2)
    for arguments in (("nonsense",), ("create",), ("list", "a", "b", "c"), ("create", "--nope")):
        ended = run(*arguments)
        assert ended.status == 2
        assert "Traceback" not in ended.err
    assert rpmem.__version__ in run("--version").out


# --- the life of a pool ---


#: The command, whose pools lose their first replica just before they are closed.
DYING = """
import os, runpy, signal
import rpmem
leave = rpmem.Pool.__exit__
def die_and_leave(pool, *raised):
    os.kill(pool.replicas[0].peer.pid, signal.SIGKILL)
    return leave(pool, *raised)
rpmem.Pool.__exit__ = die_and_leave
runpy.run_module("rpmem.cli", run_name="__main__")
"""


def test_a_replica_that_is_lost_while_its_pool_is_closed_is_told(tmp_path, target, run):
    """It is not marked as complete: a command that made, opened or restored it says so."""
    local, name = str(tmp_path / "p"), "a.set"

    def status_of(*arguments, dies):
        ended = Ended(arguments, tmp_path, program=("-c", DYING)) if dies else run(*arguments)
        return ended.status

    create = ("create", local, "--size", SIZE, "--replica", f"{target} {name}", "--parts", "1")
    reopen = ("open", local, "--replica", f"{target} {name}")
    assert status_of(*create, dies=True) == ReplicaLost.exit_status
    assert status_of(*reopen, dies=True) == ReplicaLost.exit_status
    assert status_of(*reopen, dies=False) == 0
    os.unlink(local)
    assert status_of("restore", local, target, name, dies=True) == ReplicaLost.exit_status
    assert status_of(*reopen, dies=False) == 0


def test_the_life_of_a_pool(run, tmp_path, target, sets):
    replica = f"{target} a.set"
    ended = run("create", "p", "--size", SIZE, "--replica", replica, "--parts", 2)
    assert ended.status == 0, ended.err
    assert "4 MiB (4194304 bytes)" in ended.text
    assert "send-after-write" in ended.text or "commit" in ended.text
    with rpmem.Pool.open(tmp_path / "p", replica) as pool:
        pool.array("matrix", (3, 5), "f4", "F")[:] = 1
        pool.array("tab", 2, [("x", "u1")])
        pool.persist()
    ended = run("list", "p")
    assert "matrix float32 (3, 5) F 60 B" in ended.text
    lines = [json.loads(line) for line in run("list", "p", "--json").out.splitlines()]
    assert [line["name"] for line in lines] == ["matrix", "tab"]
    assert lines[0]["shape"] == [3, 5]
    before = (tmp_path / "p").read_bytes()
    ended = run("info", "p")
    assert ended.status == 0
    assert "closed it" in ended.text
    assert "arrays 2" in ended.text
    assert (tmp_path / "p").read_bytes() == before
    ended = run("open", "p", "--replica", replica)
    assert ended.status == 0, ended.err
    assert re.search(r"epoch 3 \([0-9a-f]{8}\)", ended.text)
    (tmp_path / "p").unlink()
    ended = run("restore", "p", target, "a.set")
    assert ended.status == 0, ended.err
    with rpmem.Pool.open(tmp_path / "p", readonly=True) as pool:
        assert (pool["matrix"] == 1).all()
    assert run("remove", "p").status == 0
    assert run("remove", target, "a.set", "--pool-set").status == 0
    assert list(sets.iterdir()) == []
    assert [path.name for path in tmp_path.iterdir()] == ["sets"]


def test_poolset_files_bring_their_replicas(run, tmp_path, target):
    (tmp_path / "l.set").write_text(f"PMEMPOOLSET\n4M {tmp_path}/one\nREPLICA {target} r.set\n")
    ended = run("create", "l.set", "--parts", 1)
    assert ended.status == 0, ended.err
    assert f"replica {target} r.set" in run("info", "l.set").text
    assert "r.set" in run("open", "l.set").text
    assert run("remove", "l.set", "--pool-set").status == 0
    assert not (tmp_path / "l.set").exists()
    assert not (tmp_path / "one").exists()


def test_copies_that_are_brought_together(run, tmp_path, target):
    """Attach, sync and restore, which tell programs the same."""
    one, two = f"{target} a.set", f"{target} b.set"
    assert run("create", "p", "--size", SIZE, "--replica", one, "--parts", 1).status == 0
    ended = run(
        "attach", "p", target, "b.set", "--create", "--parts", 1, "--replica", one, "--json"
    )
    assert ended.status == 0, ended.err
    told = json.loads(ended.out)
    assert [each["replica"] for each in told["replicas"]] == [one, two]
    assert told["given_up"] == []
    with rpmem.Pool.open(tmp_path / "p", []) as pool:
        pool.array("a", 100, "u1")[:] = 7
        pool.persist()
    ended = run("sync", "p", target, "a.set", two, "--rate-limit", "1GB", "--json")
    assert ended.status == 0, ended.err
    told = json.loads(ended.out)
    assert told["pool"] == str(tmp_path / "p")
    assert told["size"] == 4 << 20
    assert [each["level"] for each in told["replicas"]] == [told["level"]] * 2
    with rpmem.Pool.open(tmp_path / "p", [one, two]) as pool:
        assert pool.epoch.number == told["epoch"]["number"] + 1
        for replica in range(2):
            assert (pool.read(pool["a"], replica=replica) == 7).all()
    ended = run("sync", "p", one)
    assert ended.status == 0
    assert "given up" in ended.text
    (tmp_path / "p").unlink()
    check_error(run("restore", "p", two), NotProvenNewest, "lost=")
    ended = run("restore", "p", two, target, "a.set", "--json")
    assert ended.status == 0, ended.err
    assert [each["replica"] for each in json.loads(ended.out)["replicas"]] == [two, one]
    (tmp_path / "p").unlink()
    ended = run("restore", "p", one, "--lost", two, "--rate-limit", "1GiB")
    assert ended.status == 0, ended.err
    assert run("sync", "p", target).status == 2
    assert run("sync", "p", one, two).status == 0
    check_error(run("sync", "p", one, "--rate-limit", "fast"), UsageError, "fast")


def test_an_empty_pool_lists_nothing(run):
    assert run("create", "p", "--size", SIZE).status == 0
    assert run("list", "p").out == "no arrays\n"
    assert run("list", "p", "--json").out == ""


# --- what goes wrong ---


def test_errors_are_one_line_and_a_status(run, tmp_path, target):
    check_error(run("open", "missing"), PoolSetNotFound, "missing")
    check_error(run("list", "missing"), PoolSetNotFound)
    check_error(run("restore", "p", target, "none.set"), PoolSetNotFound, "none.set")
    check_error(run("restore", "p", "bad target", "none.set"), TargetSyntaxError)
    check_error(run("check", "no-such-host.invalid"), HostUnknown, "no-such-host.invalid")
    assert (
        run("create", "p", "--size", SIZE, "--replica", f"{target} a.set", "--parts", 1).status == 0
    )
    check_error(run("create", "p", "--size", SIZE), PoolSetExists)
    check_error(run("restore", "p", target, "a.set"), PoolSetExists, "p")
    old = (tmp_path / "p").read_bytes()
    assert run("open", "p", "--replica", f"{target} a.set").status == 0
    (tmp_path / "p").write_bytes(old)
    replica = f"{target} a.set"
    check_error(run("open", "p", "--replica", replica), StaleReplica, "restore", "discard")
    for arguments in (("--discard", f"{target} b.set"), ("--force",)):
        assert run("open", "p", "--replica", replica, *arguments).status == 2
    check_error(run("open", "p", "--replica", replica), StaleReplica)
    assert run("open", "p", "--replica", replica, "--discard", replica).status == 0
    assert run("open", "p", "--replica", replica).status == 0
    assert run("restore", "q", target, "a.set", "--force").status == 2


def test_removing_what_is_no_pool_is_refused(run, tmp_path):
    precious = tmp_path / "precious"
    precious.write_bytes(b"mine" * (1 << 20))
    ended = run("remove", "precious")
    assert ended.status == 5
    assert precious.read_bytes() == b"mine" * (1 << 20)


@pytest.mark.parametrize("verb", ["info", "list", "open"])
def test_a_pool_of_format_1_is_named_and_left_alone(run, tmp_path, verb):
    assert run("create", "p", "--size", SIZE).status == 0
    old = (tmp_path / "p").read_bytes().replace(b"RPMEMSB2", b"RPMEMSB1")
    (tmp_path / "p").write_bytes(old)
    check_error(run(verb, "p"), HeaderError, "format 1", "rpmem 0.1.0")
    assert (tmp_path / "p").read_bytes() == old


def test_debug_shows_the_traceback(run):
    ended = run("--debug", "open", "missing")
    assert ended.status == 1
    assert "Traceback" in ended.err


# --- check ---


def test_check_of_a_good_target(run, target, sets):
    ended = run("check", target)
    assert ended.status == 0, ended.err
    assert "everything works" in ended.out
    assert ended.out.count("  ok ") == 4
    assert list(sets.iterdir()) == []
    ended = run("check", target, "--talk-only")
    assert ended.out.count("  ok ") == 1


#: The command, in a process whose system calls userfaultfd are refused, as containers' are.
CONFINED = """
import ctypes, platform, runpy, struct
number = {"x86_64": 323, "aarch64": 282}[platform.machine()]
load, equal, give, refuse, allow = 0x20, 0x15, 0x06, 0x50001, 0x7fff0000
steps = (load, 0, 0, 0), (equal, 0, 1, number), (give, 0, 0, refuse), (give, 0, 0, allow)
program = ctypes.create_string_buffer(b"".join(struct.pack("<HBBI", *step) for step in steps))
filter = struct.pack("@HP", len(steps), ctypes.addressof(program))
assert ctypes.CDLL(None).prctl(38, 1, 0, 0, 0) == 0
assert ctypes.CDLL(None).prctl(22, 2, filter, 0, 0) == 0
runpy.run_module("rpmem.cli", run_name="__main__")
"""


def test_check_says_how_changes_are_found(run, tmp_path, target):
    with rpmem.Pool.create(tmp_path / "p", SIZE) as pool:
        found = pool.tracking
    told = re.search(r"tracking is '(\w+)' here: persist\(\) without", run("check", target).text)
    # A file system may have reasons not to do what the kernel can.
    assert told[1] == found or (told[1], found) == ("kernel", "digest")


def test_check_says_why_the_kernel_does_not_find_them(tmp_path, target):
    ended = Ended(("check", target), tmp_path, program=("-c", CONFINED))
    assert ended.status == 0, ended.err
    told = "tracking is '(digest|off)' here: .* \\(userfaultfd: Operation not permitted[;)]"
    assert re.search(told, ended.text)


def test_check_names_the_step_that_failed(run, sets):
    ended = run("check", f"local:{sets}/missing")
    assert ended.status != 0
    assert "failed" in ended.out
    assert ended.err.startswith("rpmem: ")


def test_check_over_ssh(run, ssh_node):
    ended = run("check", ssh_node, "--talk-only")
    assert ended.status == 0, ended.err
    assert "rpmemd" in ended.out
    ended = run("check", ssh_node, "--talk-only", RPMEM_CMD="no-such-rpmemd")
    check_error(ended, DaemonMissing, "no-such-rpmemd")


# --- demo ---


def test_the_demo(run, tmp_path):
    ended = run("demo", "--size", "16MiB", "--directory", tmp_path, "--image", "picture.png")
    assert ended.status == 0, ended.err + ended.out
    assert ended.err == ""
    assert max(len(line) for line in ended.out.splitlines() if "/" not in line) <= 80
    for words in ("a strided view", "msync p50", "1 MiB", "ReplicaLost", "0 wrong"):
        assert words in ended.out
    drawn = (tmp_path / "picture.png").read_bytes() if "no picture" not in ended.out else b"\x89PNG"
    assert drawn.startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".png"] == []


def test_the_demo_over_ssh(run, ssh_node, tmp_path):
    ended = run("demo", ssh_node, "--size", "16MiB", "--directory", tmp_path, "--image", "p.png")
    assert ended.status == 0, ended.err + ended.out
    assert f"target   {ssh_node}" in ended.out
    assert "ReplicaLost" in ended.out
    assert "0 wrong" in ended.out
