"""Libraries are opened when they are first used; what does without one, and who says so."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rpmem.base import libraries
from rpmem.errors import ConfigError, MissingExtension
from tests.support.without import has_library

ROOT = Path(__file__).resolve().parents[3]
#: What is done with each library, and how a program does it.
USES = {
    "libfabric": "import rpmem.fabric.providers as p; p.load('tcp').version()",
    "libibverbs": "import rpmem.fabric.providers as p; p.load('verbs').devices()",
    "librdmacm": "import rpmem.fabric.providers as p; p.load('verbs').devices()",
    "libpmem2": "import rpmem.memory.device as d; d.need_library()",
    "libmemkind": "import rpmem.memkind",
    "libssl": "import rpmem.fabric.stream.handshake as h; h.need_encryption()",
}
#: A function of each, and the version of it that rpmem calls.
CALLED = {
    "libfabric": ("fi_version", "FABRIC_1.0"),
    "libibverbs": ("ibv_get_device_list", "IBVERBS_1.1"),
    "librdmacm": ("rdma_create_event_channel", "RDMACM_1.0"),
    "libpmem2": ("pmem2_source_from_fd", "LIBPMEM2_1.0"),
    "libssl": ("TLS_client_method", "OPENSSL_3.0.0"),
}
CATCH = """
import rpmem
try:
    {use}
except rpmem.MissingExtension as error:
    print(error.errno, error, sep="|")
else:
    print("used")
"""


def run(program: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    keep = {key: value for key, value in os.environ.items() if not key.startswith("RPMEM_")}
    return subprocess.run(
        [sys.executable, program, *arguments],
        env=keep | variables,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )


def said_by(use: str, chosen: str) -> str:
    """Run a program of one line with libraries as chosen; return what it printed."""
    done = run("-c", CATCH.format(use=use), RPMEM_LIBRARIES=chosen)
    assert done.returncode == 0, done.stderr
    return done.stdout


def needs(name: str) -> None:
    if not has_library(name):
        pytest.skip(f"{name} is not here")


# --- who names it ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", USES)
def test_what_needs_a_library_uses_it(name):
    """The control of the next tests: the same programs, with the library."""
    needs(name)
    assert said_by(USES[name], "") == "used\n"


@pytest.mark.parametrize("name", USES)
@pytest.mark.parametrize("way", ["none", "gone", "broken"])
def test_a_library_that_is_not_there_is_named_with_its_package(tmp_path, name, way):
    file, packages = libraries.FILES[name]
    place = tmp_path / file
    if way == "broken":
        place.write_bytes(b"\x7fELF")
    said = said_by(USES[name], f"{name}={'none' if way == 'none' else place}")
    assert said.startswith(f"38|{file} ")
    assert f"apt-get install {packages})" in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("name", CALLED)
def test_a_library_of_another_version_is_refused(tmp_path, name):
    called, version = CALLED[name]
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no compiler here")
    source, versions, library = (tmp_path / f"a.{end}" for end in ("c", "map", "so"))
    source.write_text(f"void *{called}(void) {{ return 0; }}\n")

    def made(version: str) -> str:
        versions.write_text(f"{version} {{ global: {called}; local: *; }};\n")
        options = ["-shared", "-fPIC", f"-Wl,--version-script={versions}", "-o", library]
        subprocess.run([compiler, source, *options], check=True, timeout=60)
        return said_by(USES[name], f"{name}={library}")

    lacks = re.compile(r"38\|\S+ has no (\w+) of version (\S+)\. Install")
    assert lacks.match(made("OTHER_9.9")).groups() == CALLED[name]
    # With the right version of this function, another one is the first that is missed.
    assert lacks.match(made(version))[1] != called


# --- what does without ----------------------------------------------------------------------------

POOL = """
import sys, rpmem
folder, replicas = sys.argv[1:]
with rpmem.Pool.create(folder + "/a", "8MiB", replicas=replicas or None, parts=1) as pool:
    pool.array("x", 1000, "f8")[:] = 1
    pool.persist()
    print(pool.medium)
with rpmem.Pool.open(folder + "/a") as pool:
    print(pool["x"].sum())
"""


@pytest.mark.parametrize("hidden", ["libfabric", "libpmem2", "libibverbs", "librdmacm"])
def test_a_pool_needs_no_library(tmp_path, hidden):
    everything = ",".join(f"{name}=none" for name in libraries.FILES)
    for chosen in (f"{hidden}=none", everything):
        shutil.rmtree(tmp_path / "pool", ignore_errors=True)
        (tmp_path / "pool").mkdir()
        done = run("-c", POOL, str(tmp_path / "pool"), "", RPMEM_LIBRARIES=chosen)
        assert done.returncode == 0, done.stderr
        medium, total = done.stdout.split()
        assert medium in ("page", "volatile")
        assert total == "1000.0"


def test_a_replica_does_without_libpmem2_on_both_sides(tmp_path):
    needs("libfabric")
    target = f"local:{tmp_path} a.set"
    done = run("-c", POOL, str(tmp_path), target, RPMEM_LIBRARIES="libpmem2=none")
    assert done.returncode == 0, done.stderr


LEAVE = """
import os, signal, sys, rpmem
with rpmem.Pool.create(sys.argv[1], "8MiB") as pool:
    field = pool.array("x", 100_000, "f8")
    field[:] = 1
    pool.persist()
    print(pool.medium == "pmem", flush=True)
    field[::2] = 2
    os.kill(os.getpid(), signal.SIGKILL)
"""
GO_ON = """
import sys, rpmem
with rpmem.Pool.open(sys.argv[1]) as pool:
    kept, perhaps = (set(pool["x"][at::2].tolist()) for at in (1, 0))
    print(pool.medium == "pmem", kept, perhaps <= {1.0, 2.0})
    pool["x"][:] = 3
    pool.persist()
"""


@pytest.mark.parametrize("first", ["with", "without"])
def test_a_pool_left_open_by_the_one_is_opened_by_the_other(tmp_path, first):
    """With libpmem2 the processor's caches are flushed, without it the kernel is asked to."""
    needs("libpmem2")
    pool = str(tmp_path / "pool")
    known: dict[str, str] = {"PMEM_IS_PMEM_FORCE": "1"}
    ways = [(known, True), ({"RPMEM_LIBRARIES": "libpmem2=none"}, False)]
    (left, flushes), (opened, other) = ways if first == "with" else reversed(ways)
    killed = run("-c", LEAVE, pool, **left)
    assert killed.returncode == -9, killed.stderr
    assert killed.stdout == f"{flushes}\n"
    done = run("-c", GO_ON, pool, **opened)
    assert done.stdout == f"{other} {{1.0}} True\n", done.stderr
    done = run("-c", GO_ON, pool, **left)
    assert done.stdout == f"{flushes} {{3.0}} False\n", done.stderr


@pytest.mark.parametrize(
    "wish",
    [
        "import os; rpmem.Region.map_parts([(os.open('/dev/zero', os.O_RDWR), 0, 4096)])",
        (
            "import tempfile; f = tempfile.TemporaryFile(); f.truncate(4096); "
            "rpmem.Region.map_parts([(f.fileno(), 0, 4096)], force_pmem=True)"
        ),
        (
            "import os, tempfile; os.environ['PMEM_IS_PMEM_FORCE'] = '1'; "
            "f = tempfile.TemporaryFile(); f.truncate(4096); "
            "rpmem.Region.map_parts([(f.fileno(), 0, 4096)])"
        ),
    ],
    ids=["device", "forced", "forced by the environment"],
)
def test_what_only_libpmem2_can_flush_is_refused_without_it(wish):
    said = said_by(wish, "libpmem2=none")
    assert said.startswith("38|region: libpmem2.so.1 is not used")
    assert "apt-get install libpmem2)" in said


# --- in the command and in rpmemd -----------------------------------------------------------------


def test_the_command_says_it_in_one_message(tmp_path):
    target = f"local:{tmp_path}"
    done = run(
        "-m", "rpmem.cli", "check", target, "--provider", "tcp", RPMEM_LIBRARIES="libfabric=none"
    )
    assert done.returncode == MissingExtension.exit_status
    (line,) = done.stderr.splitlines()
    assert "libfabric.so.1 is not used" in line
    assert "apt-get install libfabric1)" in line
    # The default does without.
    done = run("-m", "rpmem.cli", "check", target, RPMEM_LIBRARIES="libfabric=none")
    assert done.returncode == 0, done.stderr


def test_check_tells_what_does_without_libpmem2(tmp_path):
    target = f"local:{tmp_path}"
    known = run("-m", "rpmem.cli", "check", target, RPMEM_LIBRARIES="libpmem2=none")
    assert known.returncode == 0, known.stderr
    text = " ".join(known.stdout.split())
    assert "files on persistent memory are made durable by msync here: libpmem2.so.1 is" in text
    if has_library("libpmem2"):
        assert "msync" not in run("-m", "rpmem.cli", "check", target).stdout


def test_check_tells_what_does_without_libssl(tmp_path):
    needs("libssl")
    told = [
        run("-m", "rpmem.cli", "check", "--talk-only", f"local:{tmp_path}", RPMEM_LIBRARIES=chosen)
        for chosen in ("libssl=none", "")
    ]
    assert [each.returncode for each in told] == [0, 0], told
    without, known = (" ".join(each.stdout.split()) for each in told)
    what = "lanes to other machines cannot be encrypted here"
    assert f"{what}: libssl.so.3 is not used: RPMEM_LIBRARIES says so. Install libssl" in without
    assert what not in known


def test_what_a_target_lacks_is_said_here(tmp_path):
    needs("libfabric")
    program = tmp_path / "rpmemd"
    program.write_text(
        f"#!/bin/sh\nRPMEM_LIBRARIES=libfabric=none exec {sys.executable} -m rpmemd\n"
    )
    program.chmod(0o755)
    said = said_by(
        f"rpmem.create('local:{tmp_path}', 'a.set', bytearray(8 << 20), parts=1, "
        f"provider='tcp', command='{program}')",
        "",
    )
    assert f"local:{tmp_path}" in said
    assert "libfabric.so.1 is not used" in said
    assert "apt-get install libfabric1)" in said


# --- where they are looked for --------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    ["libfabric", "libfabric=", "libfabric=lib/x.so", "libother=none", "libpmem2=mpi", "=none"],
)
def test_a_choice_that_makes_no_sense_is_refused(text):
    with pytest.raises(ConfigError, match="RPMEM_LIBRARIES has"):
        libraries.chosen({"RPMEM_LIBRARIES": text})


def test_choices_are_read():
    text = "libfabric=mpi, libpmem2=none,libibverbs=/opt/libibverbs.so.1,"
    assert libraries.chosen({"RPMEM_LIBRARIES": text}) == {
        "libfabric": "mpi",
        "libpmem2": "none",
        "libibverbs": "/opt/libibverbs.so.1",
    }
    assert libraries.chosen({}) == {}


def test_the_libfabric_of_an_mpi_is_taken_when_asked_for(tmp_path):
    needs("libfabric")
    package = tmp_path / "mpich-1.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: mpich\nVersion: 1\n")
    (package / "RECORD").write_text("lib/mpich/libfabric.so.1,,\n")
    (tmp_path / "lib" / "mpich").mkdir(parents=True)
    copy = tmp_path / "lib" / "mpich" / "libfabric.so.1"
    shutil.copy(libraries.file_name("libfabric"), copy)
    tell = "import rpmem.base.libraries as b; print(b.file_name('libfabric'))"
    told = run("-c", tell, PYTHONPATH=str(tmp_path), RPMEM_LIBRARIES="libfabric=mpi")
    assert told.stdout.strip() == str(copy), told.stderr
    told = run("-c", tell, PYTHONPATH=str(tmp_path))
    assert told.stdout.strip() == libraries.file_name("libfabric"), told.stderr
    lacks = run("-c", tell, RPMEM_LIBRARIES="libfabric=mpi").stderr
    if "MissingExtension" in lacks:
        assert "no installed package of mpich, impi-rt, openmpi" in lacks


def test_pythons_own_libssl_is_taken(tmp_path):
    needs("libssl")
    copy = tmp_path / "libssl.so.3"
    shutil.copy(libraries.file_name("libssl"), copy)
    (tmp_path / "_ssl.py").write_text(f"import ctypes; its = ctypes.CDLL({str(copy)!r})\n")
    tell = "import rpmem.base.libraries as b; print(b.file_name('libssl'))"
    assert run("-c", tell, PYTHONPATH=str(tmp_path)).stdout.strip() == str(copy)
    assert run("-c", tell).stdout.strip() == libraries.file_name("libssl")
    (tmp_path / "_ssl.py").write_text("raise ImportError\n")
    assert run("-c", tell, PYTHONPATH=str(tmp_path)).stdout.strip().endswith("/libssl.so.3")


# --- what is built --------------------------------------------------------------------------------


def test_compiled_parts_need_libc_alone_and_show_nothing_but_their_entry():
    readelf, nm = shutil.which("readelf"), shutil.which("nm")
    if readelf is None or nm is None:
        pytest.skip("readelf and nm are not here")
    parts = [path for each in ("rpmem", "rpmemd") for path in (ROOT / each).rglob("*.so")]
    assert parts
    told = subprocess.run([readelf, "-dW", *parts], capture_output=True, text=True, check=True)
    needed = set(re.findall(r"\(NEEDED\).*\[(.*)\]", told.stdout))
    assert "libc.so.6" in needed
    assert {each for each in needed if not re.match(r"(libc|libm|libpthread|ld-)", each)} == set()
    calls = re.compile(r"^ *U (?:fi|ibv|rdma|pmem2|memkind|SSL|TLS|BIO|ERR|XXH\w*)_\w+", re.M)
    for path in parts:
        wanted = subprocess.run([nm, "-D", path], capture_output=True, text=True, check=True).stdout
        assert calls.findall(wanted) == []
        shown = re.findall(r" [TDBR] (\S+)", wanted)
        if not path.name.startswith("no_psm"):
            assert shown == [f"PyInit_{path.name.partition('.')[0]}"]
