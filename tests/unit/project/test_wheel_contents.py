"""What `make wheel` looks for in a wheel, and what it says when it finds it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.mutants import run as mutants
from tests.wheel import contents, pythons
from tests.wheel.chroot import SUITES, folder
from tests.wheel.steps import STEPS, first_program

ROOT = Path(__file__).resolve().parents[3]
NAME = "rpmem-1-cp311-cp311-{}_x86_64.whl"


@pytest.fixture
def made(tmp_path):
    """Return a function that makes a wheel of some files, and says what is wrong with it."""
    compiler = shutil.which("cc")
    if compiler is None or shutil.which("readelf") is None:
        pytest.skip("there is no compiler here")
    (tmp_path / "a.c").write_text("double cos(double); double f(double x) { return cos(x); }\n")

    def library(*flags):
        built = tmp_path / "a.so"
        command = [compiler, "-shared", "-fPIC", tmp_path / "a.c", "-o", built]
        subprocess.run([*command, "-Wl,--no-as-needed", *flags], check=True)
        return built.read_bytes()

    def wheel(name, files):
        path = tmp_path / name
        with zipfile.ZipFile(path, "w") as archive:
            for each, content in files.items():
                archive.writestr(each, content)
        return path

    def problems(*flags, tag="manylinux_2_34", added=(), **files):
        core = {"rpmem/": b"", "rpmem/_core.so": library(*flags), **files.get("more", {})}
        plain = wheel("plain.whl", core)
        copied = dict.fromkeys(added, b"")
        return contents.problems(plain, wheel(NAME.format(tag), core | copied))

    return problems


def test_a_wheel_as_it_has_to_be(made):
    assert made("-lm") == []


def test_what_is_wrong_with_a_wheel_is_said(made):
    assert made(tag="linux") == ["auditwheel gives it no manylinux tag"]
    assert made(added=["rpmem.libs/libz-1.so.1"]) == ["auditwheel copied in rpmem.libs/libz-1.so.1"]
    assert made(more={"rpmem/a.pyx": b""}) == ["rpmem/a.pyx is for a build, and nothing else"]
    large = made(more={"rpmem/large": bytes(contents.MOST_BYTES)})
    assert len(large) == 1
    assert re.match(r"it has \d+ bytes, \d+ are the limit", large[0])


def test_a_library_that_is_not_libc_is_noticed(made, tmp_path):
    (tmp_path / "b.c").write_text("int b;\n")
    command = ["cc", "-shared", "-fPIC", tmp_path / "b.c", "-o", tmp_path / "libfabric.so"]
    subprocess.run([*command, "-Wl,-soname,libfabric.so.1"], check=True)
    assert made(tmp_path / "libfabric.so") == ["rpmem/_core.so needs libfabric.so.1"]


def test_the_pythons_are_those_that_rpmem_supports():
    text = (ROOT / "pyproject.toml").read_text()
    assert tuple(re.findall(r'Python :: (3\.\d+)"', text)) == pythons.VERSIONS
    assert set(SUITES.values()) <= set(pythons.VERSIONS)
    found = pythons.found()
    assert set(found) <= set(pythons.VERSIONS)
    for version, path in found.items():
        told = subprocess.run([path, "--version"], capture_output=True, text=True, check=True)
        assert told.stdout.startswith(f"Python {version}.")


def test_no_copy_of_the_tree_takes_what_wheels_are_made_in(tmp_path, monkeypatch):
    """A machine in the tree once filled a disk: a copy of its /dev/zero has no end."""
    assert not folder().is_relative_to(ROOT)
    tree = tmp_path / "tree"
    for name in ("wheel", "cython"):
        (tree / "build" / name).mkdir(parents=True)
    monkeypatch.setattr(mutants, "ROOT", tree)
    copied = mutants._copy(tree, tmp_path / "copy")
    assert [path.name for path in (copied / "build").iterdir()] == ["cython"]


def test_the_first_program_of_the_readme_is_what_is_tried():
    program = first_program("node2")
    compile(program, "first", "exec")
    assert program.count("node2 run.set") == 2
    assert "local:" not in program


def test_steps_can_be_chosen():
    done = subprocess.run(
        [sys.executable, "-m", "tests.wheel.run", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert all(step.__name__ in done.stdout for step in STEPS)
