"""What scripts/setup installs for each purpose, and its messages if that fails.

Nothing is installed here: apt and dpkg are replaced by stand-ins of a few lines.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PURPOSES = ("run", "demo", "bench", "test", "wheel")

# A compiler, and Python with its headers: this is what a build needs.
BUILD = {"gcc", "libc6-dev", "python3", "libpython3-dev", "python3-venv"}
# These bring systemd and udev, or are large, and nobody needs them who has not asked for them.
ON_REQUEST = re.compile(
    r"libfabric1|pyverbs|rdma-?core|librdmacm|ibverbs|memkind|systemd|udev|pmdk"
)


def asked_for(purpose: str, *arguments: str, **variables: str) -> set[str]:
    """Return the packages that scripts/setup would want to find."""
    done = subprocess.run(
        [ROOT / "scripts" / "setup", "--list", purpose, *arguments],
        env={"PATH": os.environ["PATH"], **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


def test_the_demonstration_needs_a_compiler_and_no_library():
    assert asked_for("demo") == BUILD


def test_ssh_comes_with_a_target():
    assert asked_for("demo", "user@node2") == BUILD | {"openssh-client"}


@pytest.mark.parametrize("purpose", PURPOSES)
def test_libraries_come_on_request(purpose):
    plain = asked_for(purpose)
    assert plain >= BUILD
    assert [name for name in plain if ON_REQUEST.search(name)] == []
    assert asked_for(purpose, RDMA="0", MEMKIND="") == plain
    rdma = asked_for(purpose, RDMA="1") - plain
    devices = {"libibverbs-dev", "librdmacm-dev", "python3-pyverbs", "ibverbs-providers"}
    assert rdma == devices | {"libfabric1"}
    assert asked_for(purpose, MEMKIND="1") - plain == {"libmemkind0"}
    pmem = asked_for(purpose, PMEM="1") - plain
    assert pmem == {"libpmem2"} | ({"pmdk-tools"} if purpose == "test" else set())


def test_headers_of_libraries_are_only_for_what_they_are_compared_with():
    for purpose in PURPOSES:
        headers = {name for name in asked_for(purpose) if name.endswith("-dev")} - BUILD
        assert bool(headers) == (purpose == "bench")


def test_rdma_in_the_emulated_machine_asks_for_rdma():
    makefile = (ROOT / "Makefile").read_text()
    recipe = re.search(r"^test-rdma:.*\n((?:\t.*\n)+)", makefile, re.M)
    assert "RDMA=1 scripts/setup test" in recipe[1]


def test_what_runs_everything_asks_for_everything():
    ci = (ROOT / ".ci" / "run").read_text()
    assert ci.index("\nexport RDMA=1 PMEM=1 MEMKIND=1 PEERS=1 FUZZ=1\n") < ci.index("\nmake ")
    makefile = (ROOT / "Makefile").read_text()
    nightly = re.search(r"^nightly:.*\n((?:\t.*\n)+)", makefile, re.M)
    assert "RDMA=1 PMEM=1 MEMKIND=1 PEERS=1 FUZZ=1 scripts/setup test" in nightly[1]


@pytest.mark.parametrize("path", ["scripts/setup", "scripts/apt-install", "scripts/test-rdma"])
def test_no_recommended_packages_are_asked_for_or_advised(path):
    lines = (ROOT / path).read_text().splitlines()
    installs = [line for line in lines if re.search(r"(apt-get|\$apt) install", line)]
    assert [line for line in installs if "--no-install-recommends" not in line] == []


# --- when it goes wrong -----------------------------------------------------------------------

STAND_INS = {
    "id": "echo ${AS_USER-0}",
    "sudo": "exit 1",
    "dpkg-query": "exit 1",  # nothing is installed
    "apt-get": "exit 0",
    "apt-cache": "exit 0",  # nothing is on offer
}


@pytest.fixture
def machine(tmp_path: Path):
    """Return a function that runs scripts/setup on a machine where apt-install does as told."""
    scripts = tmp_path / "clone" / "scripts"
    programs = tmp_path / "bin"
    for directory in (scripts, programs):
        directory.mkdir(parents=True)
    shutil.copy(ROOT / "scripts" / "setup", scripts)
    for name, text in STAND_INS.items():
        write_program(programs / name, text)

    def run(apt_install: str, **variables: str) -> subprocess.CompletedProcess[str]:
        write_program(scripts / "apt-install", apt_install)
        return subprocess.run(
            [scripts / "setup", "demo"],
            env={"PATH": f"{programs}:{os.environ['PATH']}", **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )

    run.clone = scripts.parent
    return run


def write_program(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_a_failing_step_names_its_log_and_shows_its_end(machine):
    done = machine("seq 1 400; echo 'E: no space left' >&2; exit 100")
    assert done.returncode == 1
    # One line for the step, whatever it printed.
    assert re.fullmatch(r"\[1/4\] Debian packages: gcc .*\.\.\. failed after \d+ s\n", done.stdout)
    assert "build/setup.log" in done.stderr
    assert "E: no space left" in done.stderr
    assert len(done.stderr.splitlines()) < 20
    log = (machine.clone / "build" / "setup.log").read_text()
    assert log.startswith("== Debian packages: gcc")
    assert "\n1\n2\n3\n" in log
    assert "E: no space left" in log


def test_an_interrupted_dpkg_is_named(machine):
    done = machine(
        "echo \"E: dpkg was interrupted, you must manually run 'dpkg --configure -a'"
        ' to correct the problem." >&2; exit 100'
    )
    assert done.returncode == 1
    assert "interrupted" in done.stderr
    assert "dpkg --configure -a" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_who_is_not_root_is_told_what_to_have_installed(machine):
    done = machine("exit 99", AS_USER="1000")
    assert done.returncode == 1
    advice = re.search(r"apt-get install (.*);", done.stderr)
    assert set(advice[1].split()) == BUILD | {"--no-install-recommends"}
    assert done.stdout == ""
