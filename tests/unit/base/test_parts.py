"""Where a compiled part is missing, whatever needs it says so, and how to come by it."""

from __future__ import annotations

import re
import sys

import pytest

from rpmem.errors import MissingExtension
from tests.support.fabrics import needs_libfabric
from tests.support.without import ROOT, Installation, is_built

PARTS = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for package in ("rpmem", "rpmemd")
    for path in (ROOT / package).rglob("*.pyx")
}


def test_every_part_has_the_page_by_which_it_is_known():
    lacking = [part for part in PARTS if not (ROOT / (part.replace(".", "/") + ".pyi")).exists()]
    assert lacking == []


@pytest.mark.parametrize("lacking", ["rpmem.memory.region", "rpmem.memory.media"])
@pytest.mark.parametrize(
    "program",
    [
        "import rpmem; rpmem.Pool.create('pool', '8MiB')",
        "import rpmem; rpmem.create('local:', 'a.set', bytearray(1 << 20))",
        "import rpmem; rpmem.Region",
        "from rpmem import Replica",
        "import rpmem.files.poolfiles as p; p.map_parts([])",
        "import rpmem._core",
        "import rpmemd.service",
    ],
)
def test_python_is_told_which_part_is_missing(tmp_path, lacking, program):
    code = (
        "from rpmem import MissingExtension\n"
        f"try:\n    {program}\n"
        "except MissingExtension as error:\n    print(error.where, error.errno, error, sep='|')\n"
    )
    done = Installation(tmp_path, lacking).run("-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{lacking}|38|{lacking}: ")
    assert "make build" in done.stdout


def test_without_digests_a_pool_does_without_them(tmp_path):
    code = (
        "import rpmem\n"
        "with rpmem.Pool.create('pool', '8MiB') as pool:\n    print(pool.tracking != 'digest')\n"
        "try:\n    rpmem.Pool.open('pool', tracking='digest')\n"
        "except rpmem.MissingExtension as error:\n    print(error)\n"
    )
    done = Installation(tmp_path, "rpmem.memory.changes.digests").run("-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("True\nrpmem.memory.changes.digests: this part")
    assert "make build" in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ("-m", "rpmem.cli", "demo"),
        ("-m", "rpmem.cli", "create", "pool", "--size", "8MiB"),
        ("-m", "rpmem.cli", "info", "pool"),
        ("-m", "rpmemd"),
    ],
)
def test_commands_say_it_in_one_message(tmp_path, arguments):
    installation = Installation(tmp_path / "installed", "rpmem.memory.region", "rpmem.memory.media")
    done = installation.run(*arguments, input="")
    assert done.returncode in (1, MissingExtension.exit_status)
    assert re.match(r"rpmemd?: rpmem\.memory\.(region|media): this part", done.stderr)
    assert "make build" in done.stderr
    assert "Traceback" not in done.stderr
    assert "should not have happened" not in done.stderr
    assert not (installation.folder / "pool").exists()


@pytest.mark.parametrize(
    ("part", "status"),
    [
        ("rpmem._core", MissingExtension.exit_status),
        ("rpmem.fabric.stream.fabric", MissingExtension.exit_status),
        ("rpmem.fabric.libfabric.fabric", 0),
        ("rpmemd.service", 3),  # the target says it
        ("rpmem.fabric.libfabric.load", 0),  # which only saves time
        ("rpmem.fabric.verbs.fabric", 0),
        ("rpmem.memory.changes.pagemap", 0),
    ],
)
def test_a_session_says_which_part_it_lacks(tmp_path, part, status):
    done = Installation(tmp_path, part).run("-m", "rpmem.cli", "check", "local:")
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    if status:
        assert f"{part}: this part of rpmem was not built" in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_what_a_target_lacks_is_told_to_the_initiator(tmp_path):
    import rpmem

    installation = Installation(tmp_path / "installed", "rpmem.memory.region")
    program = tmp_path / "rpmemd"
    program.write_text(
        f"#!/bin/sh\nPYTHONPATH={installation.folder} exec {sys.executable} -P -m rpmemd\n"
    )
    program.chmod(0o755)
    with pytest.raises(
        rpmem.RpmemError, match=r"rpmem\.memory\.region: this part of rpmem was not built"
    ):
        rpmem.create(
            f"local:{tmp_path}", "a.set", bytearray(8 << 20), parts=1, command=str(program)
        )


def test_rpmem_itself_needs_no_part(tmp_path):
    installation = Installation(tmp_path, *PARTS)
    done = installation.run("-c", "import rpmem; print(rpmem.__version__, rpmem.PoolAttributes)")
    assert done.returncode == 0, done.stderr
    assert installation.run("-m", "rpmem.cli", "--help").returncode == 0
    assert installation.run("-m", "rpmemd", "--version").returncode == 0


@needs_libfabric
def test_a_part_that_cannot_be_loaded_is_named_too(tmp_path):
    if not is_built("rpmem.fabric.libfabric.fabric"):
        pytest.skip("rpmem.fabric.libfabric.fabric is not built here")
    code = (
        "import rpmem, rpmem.fabric.providers\n"
        "try:\n    rpmem.fabric.providers.load()\n"
        "except rpmem.MissingExtension as error:\n    print(error)\n"
    )
    done = Installation(tmp_path, broken=("rpmem.fabric.libfabric.fabric",)).run("-c", code)
    assert "rpmem.fabric.libfabric.fabric: this part of rpmem cannot be loaded: " in done.stdout, (
        done.stderr
    )
    assert "make build" in done.stdout


def test_other_names_are_looked_for_as_ever(tmp_path):
    code = (
        "import rpmem\n"
        "for name in ('rpmem._nothing', 'rpmem.nothing', '_nothing', 'other._pmem'):\n"
        "    try:\n        __import__(name)\n"
        "    except ModuleNotFoundError as error:\n        print(error.name)\n"
    )
    done = Installation(tmp_path).run("-c", code)
    assert done.stdout.split() == ["rpmem._nothing", "rpmem.nothing", "_nothing", "other"]
