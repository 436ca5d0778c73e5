"""The debug build: a copy that follows the tree; a run fails if anything is reported."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.debug import run, tree
from tests.debug.run import CONTROLS, ROOT, control, reports_of
from tests.debug.tree import MARK, NotHere, interpreter, mirror, runtime

# --- the copy ---------------------------------------------------------------------------------


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    for name in ("setup.py", "rpmem/a.pyx", "rpmem/a.so", "build/old.py", ".venv/bin/python"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


@pytest.fixture
def copy(tmp_path, source):
    mirror(source, tmp_path / "copy")
    return tmp_path / "copy"


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_copy_has_sources_and_nothing_built(copy):
    assert files(copy) == {MARK, "setup.py", "rpmem/a.pyx"}
    assert "-fsanitize=address,undefined" in (copy / MARK).read_text().split()


def test_a_copy_follows_the_source_and_keeps_what_is_built(copy, source):
    (copy / "rpmem/a.cpython.so").write_text("built")
    (source / "setup.py").write_text("changed")
    (source / "rpmem/b.pyx").write_text("new")
    mirror(source, copy)
    assert files(copy) == {MARK, "setup.py", "rpmem/a.pyx", "rpmem/a.cpython.so", "rpmem/b.pyx"}
    assert (copy / "setup.py").read_text() == "changed"


def test_what_was_built_from_a_file_that_is_gone_goes_too(copy, source):
    (copy / "rpmem/a.cpython.so").write_text("built")
    (source / "rpmem/a.pyx").unlink()
    mirror(source, copy)
    assert files(copy) == {MARK, "setup.py"}


def test_other_flags_leave_nothing_that_was_built(copy, source):
    (copy / "rpmem/a.cpython.so").write_text("built")
    (copy / MARK).write_text("-O0")
    mirror(source, copy)
    assert files(copy) == {MARK, "setup.py", "rpmem/a.pyx"}


def test_the_tree_itself_is_not_marked():
    assert not (ROOT / MARK).exists()


# --- the run ----------------------------------------------------------------------------------


@pytest.fixture
def outcome(copy, monkeypatch):
    """Run tests that end with a status and report something; return the status of the whole."""
    monkeypatch.setattr(run, "control", lambda *_: True)

    def one(status, *reported):
        python = copy / "python"
        writes = "".join(f"echo {text} > {reports_of(copy)}/{text}\n" for text in reported)
        python.write_text(f"#!/bin/sh\n{writes}exit {status}\n")
        python.chmod(0o755)
        return run.run(python, copy, [])

    return one


def test_a_run_is_green_without_reports_and_red_with_one(outcome, capfd):
    assert outcome(0) == 0
    assert outcome(0, "asan.1") == 1
    assert "== asan.1" in capfd.readouterr().out
    assert outcome(0) == 0
    assert outcome(2) == 2


def test_a_run_whose_controls_are_not_reported_is_red(outcome, monkeypatch, capfd):
    monkeypatch.setattr(run, "control", lambda _python, _copy, name: name != "overflow")
    assert outcome(0) == 1
    assert capfd.readouterr().err == "debug: not reported, though made on purpose: overflow\n"


def test_without_the_runtime_the_reason_is_said(monkeypatch, capfd):
    monkeypatch.setattr(tree.shutil, "which", lambda _: None)
    assert run.main([]) == 1
    assert capfd.readouterr().err == "debug: the debug build needs gcc\n"


# --- with the sanitizers ----------------------------------------------------------------------

GREEN = """
import subprocess, sys

def test_that_is_green_though_a_child_oversteps():
    subprocess.run([sys.executable, "-c", {program!r}])
"""
OVERSTEPS = "from tests.support._overstep import store_behind; store_behind(8)"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_mistakes_are_reported_and_turn_a_green_run_red(tmp_path, capfd):
    try:
        runtime("asan")
    except NotHere as error:
        pytest.skip(str(error))
    copy = tmp_path / "copy"
    mirror(ROOT, copy)
    program = "from tests.support.compiled import build; build('_overstep')"
    subprocess.run([sys.executable, "-c", program], cwd=copy, check=True)
    python = interpreter(copy, reports_of(copy))
    assert [name for name in CONTROLS if not control(python, copy, name)] == []
    (copy / "test_child.py").write_text(GREEN.format(program=OVERSTEPS))
    words = ["-q", "--noconftest", "-c", "/dev/null", "--rootdir", ".", "test_child.py"]
    assert run.run(python, copy, words) == 1
    said = capfd.readouterr().out
    assert "1 passed" in said
    assert "heap-buffer-overflow" in said
    assert "_overstep.pyx:" in said
    (copy / "test_child.py").write_text(GREEN.format(program="pass"))
    assert run.run(python, copy, words) == 0
