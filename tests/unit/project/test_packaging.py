"""The source archive, the wheel, and the messages of a build that fails.

Each test works on a copy of the files in git, so that the tree itself stays unchanged.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
GENERATED = re.compile(r"PKG-INFO|setup\.cfg|rpmem\.egg-info/.*")


def tracked() -> list[str]:
    """Return the files that git has, as they are in the working tree."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("this tree is no clone, or git is not here")
    # Other users' clones are as good (CI may run as root in one).
    git = ["git", "-c", f"safe.directory={ROOT}", "-C", ROOT]
    done = subprocess.run([*git, "ls-files", "-z"], capture_output=True, text=True, check=True)
    return [name for name in done.stdout.split("\0") if name and (ROOT / name).exists()]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Return a copy of the sources without anything that was built."""
    copy = tmp_path / "tree"
    for name in tracked():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, copy / name)
    return copy


def setup(tree: Path, *arguments: str, status: int = 0, **variables: str) -> str:
    """Run setup.py; return what it printed."""
    keep = {key: value for key, value in os.environ.items() if not key.startswith("RPMEM_")}
    done = subprocess.run(
        [sys.executable, "setup.py", "--quiet", *arguments],
        cwd=tree,
        env=keep | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )
    assert done.returncode == status, done.stdout
    return done.stdout


def source_archive(tree: Path, **variables: str) -> Path:
    setup(tree, "sdist", "--dist-dir", "made", **variables)
    (archive,) = (tree / "made").iterdir()
    return archive


# --- the source archive -----------------------------------------------------------------------


def test_the_source_archive_holds_what_git_has(tree):
    with tarfile.open(source_archive(tree)) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()} - {""}
        files = {
            member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()
        }
    assert inside  # a folder with everything in it
    assert {name for name in files if not GENERATED.fullmatch(name)} == set(tracked())


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_source_archive_builds_and_passes_tests_elsewhere(tree, tmp_path):
    archive = source_archive(tree)
    (tmp_path / "elsewhere").mkdir()
    subprocess.run(["tar", "-xzf", archive, "-C", tmp_path / "elsewhere"], check=True)
    (unpacked,) = (tmp_path / "elsewhere").iterdir()
    shutil.rmtree(tree)
    setup(unpacked, "build_ext", "--inplace")
    where = "import rpmem._core; print(rpmem._core.__file__)"
    found = subprocess.run(
        [sys.executable, "-c", where], cwd=unpacked, capture_output=True, text=True, check=True
    )
    assert Path(found.stdout.strip()).is_relative_to(unpacked)
    tests = (
        "project/test_rooms",
        "project/test_compatibility_page",
        "pool/test_pool_local",
        "fabric/test_fabric_load",
        "project/test_setup_script",
        "project/test_lateness",
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        + [f"tests/unit/{name}.py" for name in tests],
        cwd=unpacked,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


# --- the wheel --------------------------------------------------------------------------------

SMALL = "rpmem.memory.media rpmem.fabric.libfabric.load"


@pytest.fixture
def quick_tree(tree: Path) -> Path:
    """Return a copy in which the parts named in SMALL are compiled in a second."""
    for part in SMALL.split():
        for path in tree.glob(part.replace(".", "/") + ".p*"):
            path.unlink()
        (tree / (part.replace(".", "/") + ".pyx")).write_text("nothing = None\n")
    return tree


def wheel(tree: Path, **variables: str) -> set[str]:
    """Build a wheel; return the names of its modules and compiled parts."""
    made = tree / "made"
    shutil.rmtree(made, ignore_errors=True)
    setup(tree, "bdist_wheel", "--dist-dir", "made", **variables)
    (path,) = made.iterdir()
    with zipfile.ZipFile(path) as archive:
        return {
            re.sub(r"(\.cpython-[^.]*)?\.(so|py)$", "", name)
            for name in archive.namelist()
            if name.endswith((".so", ".py"))
        }


def test_a_wheel_holds_what_was_asked_for_whatever_was_built_before(quick_tree):
    gone = quick_tree / "rpmem" / "gone.py"
    gone.write_text("")
    with_everything = wheel(quick_tree, RPMEM_EXT=SMALL)
    stand_ins = {f"rpmem/fabric/libfabric/{name}" for name in ("no_psm", "no_psm2")}
    assert {
        "rpmem/memory/media",
        "rpmem/fabric/libfabric/load",
        "rpmem/gone",
        "rpmem/pool/pool",
    } | stand_ins <= with_everything
    gone.unlink()
    left_out = wheel(quick_tree, RPMEM_EXT="rpmem.memory.media")
    dropped = {"rpmem/fabric/libfabric/load", "rpmem/gone"} | stand_ins
    assert with_everything - left_out == dropped
    assert left_out < with_everything
    # And back again.
    assert wheel(quick_tree, RPMEM_EXT=SMALL) == with_everything - {"rpmem/gone"}


def test_a_build_looks_at_no_header_of_the_system(tree, tmp_path):
    carried = {
        path.relative_to(include)
        for include in (ROOT / "third_party").glob("*/include")
        for path in include.rglob("*.h")
    }
    for name in carried:
        (tmp_path / "system" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "system" / name).write_text("#error this is the header of the system\n")
    part = "rpmem.fabric.libfabric.request"
    variables = {"RPMEM_EXT": part, "C_INCLUDE_PATH": str(tmp_path / "system")}
    setup(tree, "build_ext", "--inplace", **variables)
    # The control: without what is carried, the build does look there.
    shutil.rmtree(tree / "third_party" / "libfabric" / "include")
    shutil.rmtree(tree / "build")
    said = setup(tree, "build_ext", "--inplace", "--force", status=1, **variables)
    assert "this is the header of the system" in said


def test_a_wheel_has_the_licences_of_what_is_compiled_in(quick_tree):
    wheel(quick_tree, RPMEM_EXT="")
    (path,) = (quick_tree / "made").iterdir()
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    carried = {each.parent.name for each in (ROOT / "third_party").glob("*/LICENSE")}
    assert carried == {each.parent.name for each in (ROOT / "third_party").glob("*/include")}
    for library in carried:
        assert any(name.endswith(f"licenses/third_party/{library}/LICENSE") for name in names)


# --- what cannot be built ---------------------------------------------------------------------


def installed(directory: Path, name: str, version: str) -> str:
    """Pretend that a distribution is installed; return the directory for PYTHONPATH."""
    info = directory / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    return str(directory)


@pytest.mark.parametrize(
    ("name", "version", "needed"),
    [
        ("setuptools", "66.1.1", r"setuptools>=\d+"),
        ("Cython", "0.29.32", r"Cython>=[\d.]+,<[\d.]+"),
        ("Cython", "4.0", r"Cython>=[\d.]+,<[\d.]+"),
    ],
)
@pytest.mark.parametrize("command", ["build_ext", "sdist"])
def test_a_requirement_that_is_not_met_is_said_once(tree, tmp_path, name, version, needed, command):
    pretence = installed(tmp_path / "old", name, version)
    text = setup(tree, command, status=3, PYTHONPATH=pretence)
    (line,) = text.splitlines()
    assert re.match(f"setup.py: {needed} is needed to build rpmem", line)
    assert version in line
    assert "pip install" in line
    assert not (tree / "build").exists()


def test_without_a_compiler_that_is_said_once(tree):
    text = setup(tree, "build_ext", status=3, CC="no-such-compiler -pthread")
    (line,) = text.splitlines()
    assert "no C compiler no-such-compiler" in line


def test_the_build_script_does_not_repeat_what_stops_every_part(tree, tmp_path):
    (tree / ".venv").symlink_to(Path(sys.prefix))
    pretence = installed(tmp_path / "old", "setuptools", "66.1.1")
    done = subprocess.run(
        [tree / "scripts" / "build"],
        env={**os.environ, "PYTHONPATH": pretence},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert "setuptools" in line


def test_the_build_script_names_the_part_that_does_not_compile_and_builds_the_rest(quick_tree):
    # Few parts, so that this takes seconds.
    for source in [*quick_tree.glob("rpmem/**/*.pyx"), *quick_tree.glob("rpmemd/*.pyx")]:
        if source.stem not in ("load", "ranges"):
            source.unlink()
    (quick_tree / "rpmem" / "engine" / "ranges.pyx").write_text("def broken(:\n")
    (quick_tree / ".venv").symlink_to(Path(sys.prefix))
    done = subprocess.run([quick_tree / "scripts" / "build"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "not built: rpmem.engine.ranges (see above)" in done.stderr
    assert len(list(quick_tree.glob("rpmem/fabric/libfabric/load.*.so"))) == 1


def test_the_build_script_without_an_environment_says_so(tree):
    done = subprocess.run([tree / "scripts" / "build"], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == "scripts/build: there is no .venv here: make setup\n"


def test_the_tests_of_a_tree_that_is_not_built_say_so_once(tree):
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "tests/unit"],
        cwd=tree,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 4
    text = (done.stdout + done.stderr).strip()
    assert len(text.splitlines()) < 6
    assert text.count(f"{tree}/rpmem, is not built") == 1


def test_the_version_stands_in_one_place(tree):
    version = tree / "rpmem" / "_version.py"
    version.write_text('__version__ = "77.1"\n')
    assert source_archive(tree).name == "rpmem-77.1.tar.gz"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert "version" not in project
