"""The examples: each is run as a user would, and fits on a page."""

from __future__ import annotations

import ast
import fcntl
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
NAMES = sorted(path.name for path in EXAMPLES.glob("*.py"))
PAGE = 80


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Return a home directory, which is where the pools of the target ``local:`` lie."""
    home = tmp_path / "home"
    home.mkdir()
    return home


@pytest.fixture
def run(home: Path, tmp_path: Path):
    """Return a function that runs an example in a directory of its own."""

    def run(name: str, *arguments: str, status: int = 0, environment=None) -> str:
        done = subprocess.run(
            [sys.executable, EXAMPLES / name, *arguments],
            cwd=tmp_path,
            env=environment or {**os.environ, "HOME": str(home)},
            capture_output=True,
            text=True,
            timeout=90,
        )
        assert done.returncode == status, done.stderr
        assert "Warning" not in done.stderr
        return done.stdout if status == 0 else done.stderr

    return run


def test_every_example_is_run_here():
    here = Path(__file__).read_text()
    assert NAMES
    assert [name for name in NAMES if f'"{name}"' not in here] == []


@pytest.mark.parametrize("name", NAMES)
def test_examples_fit_on_a_page(name):
    assert len((EXAMPLES / name).read_text().splitlines()) <= PAGE


@pytest.mark.parametrize("name", NAMES)
def test_examples_say_how_they_are_run(run, home, tmp_path, name):
    text = run(name, "--help")
    first = ast.get_docstring(ast.parse((EXAMPLES / name).read_text())).splitlines()[0]
    assert first in text
    assert f"python examples/{name} " in text
    assert list(home.iterdir()) == []
    assert list(tmp_path.iterdir()) == [home]


@pytest.mark.parametrize(
    "line",
    [
        *(f"{name} --nonsense" for name in NAMES),
        "hello.py local: a.set again",
        "basic.py",
        "basic.py make local: a.set",
        "basic.py create local: a.set many",
        "basic.py create local: a.set 5000",
        "basic.py create local: a.set 4096",
        "checkpoint.py heat.pool",
        "checkpoint.py heat.pool local:a.set soon",
        "trades.py",
        "trades.py trades.pool local:a.set 1.5",
    ],
)
def test_wrong_arguments_are_answered_with_the_usage(run, home, line):
    name, *arguments = line.split()
    text = run(name, *arguments, status=2)
    assert f"python examples/{name} " in text
    assert "Traceback" not in text
    assert f"{name}: error: " in text.splitlines()[-1]
    assert list(home.iterdir()) == []


@pytest.mark.parametrize(
    "line",
    [
        "basic.py open user@ a.set",
        "fibonacci.py user@",
        "hello.py user@",
        "manual_page.py user@",
        "checkpoint.py heat.pool user@",
        "trades.py trades.pool user@",
    ],
)
def test_what_goes_wrong_is_one_message(run, line):
    text = run(*line.split(), status=1)
    assert re.match(r"[a-z-]+: ", text)
    assert "Traceback" not in text


def test_manual_page(run, home):
    text = run("manual_page.py")
    assert "4 lanes" in text
    assert "over there: second" in text
    assert list(home.iterdir()) == []


def test_manual_page_over_ssh(run, sshd, ssh_node):
    text = run("manual_page.py", ssh_node, "page.set", environment=dict(os.environ))
    assert f"on {ssh_node}" in text
    assert "over there: second" in text
    assert not (sshd.home / "page.set").exists()


def test_basic(run, home):
    assert "created with 4194304 bytes" in run("basic.py", "create", "local:", "b.set")
    text = run("basic.py", "open", "local:", "b.set")
    assert "signature EXAMPLE, version 1, b'sixteen bytes...'" in text
    assert "as they were created" in text
    assert "poolset-exists" in run("basic.py", "create", "local:", "b.set", status=1)
    assert run("basic.py", "remove", "local:", "b.set") == "removed\n"
    assert list(home.iterdir()) == []
    assert "poolset-not-found" in run("basic.py", "open", "local:", "b.set", status=1)
    assert "TARGET is" in run("basic.py", status=2)


def test_hello(run):
    greetings = [run("hello.py") for _ in range(8)]
    assert greetings[0] == "local: says nothing yet\n"
    assert greetings[1] == "local: says: Hello world!\n"
    assert greetings[7] == greetings[1]
    assert len(set(greetings)) == 7


def test_fibonacci(run):
    text = "".join(run("fibonacci.py") for _ in range(8))
    assert [int(value) for value in re.findall(r"= (\d+)", text)] == [0, 1, 1, 2, 3, 5, 8, 13]


def test_checkpoint_goes_on_where_it_was(run, tmp_path):
    replica = "local: heat.set"
    whole = run("checkpoint.py", "whole.pool", "local: whole.set", "12").splitlines()[-1]
    assert whole.startswith("at step 12, heat 6400.0")
    assert "at step 0 of 7" in run("checkpoint.py", "heat.pool", replica, "7")
    (tmp_path / "heat.pool").unlink()
    text = run("checkpoint.py", "heat.pool", replica, "9")
    assert "at step 7 of 9" in text
    text = run("checkpoint.py", "heat.pool", replica, "12")
    assert "at step 9 of 12" in text
    assert text.splitlines()[-1] == whole


def await_unlocked(part: Path) -> None:
    """Wait until the rpmemd of a dead initiator has let go of a pool."""
    deadline = time.monotonic() + 30
    with part.open() as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                assert time.monotonic() < deadline, "rpmemd outlives its initiator"
                time.sleep(0.05)


def test_checkpoint_survives_being_killed(run, home, tmp_path):
    replica = "local: heat.set"
    run("checkpoint.py", "heat.pool", replica, "2")
    simulation = subprocess.Popen(
        [sys.executable, EXAMPLES / "checkpoint.py", "heat.pool", replica, "100000"],
        cwd=tmp_path,
        env={**os.environ, "HOME": str(home), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    with simulation:
        assert simulation.stdout.readline().startswith("at step 2 of")
        time.sleep(0.5)
        simulation.send_signal(signal.SIGKILL)
    await_unlocked(home / "heat.set.part0")
    text = run("checkpoint.py", "heat.pool", replica, "0")
    reached = int(re.match(r"at step (\d+)", text)[1])
    # Without its local copy it is the same step: the replica had it before it counted.
    (tmp_path / "heat.pool").unlink()
    assert run("checkpoint.py", "heat.pool", replica, "0") == text
    run("checkpoint.py", "once.pool", "local: once.set", str(reached))
    straight = run("checkpoint.py", "once.pool", "local: once.set", "0")
    assert straight == text


def test_trades(run):
    text = run("trades.py", "trades.pool", "local: trades.set", "70")
    assert text.startswith("0 trades so far\n70 trades now")
    assert len(text.splitlines()) == 7
    # Once around the ring, and further.
    text = run("trades.py", "trades.pool", "local: trades.set", "4100")
    assert text.startswith("70 trades so far\n4170 trades now")
    assert len(text.splitlines()) == 7
