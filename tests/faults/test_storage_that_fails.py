"""Every call that changes a file, a name, a lock or a mapping fails once, here and on the target.

A preloaded shim has the n-th call of a kind fail, keeps what is durable, and drops, as the kernel
does, what a failed flush did not write. After each failure: no call claims what is not durable, no
copy is marked as complete that is not, the error says what, where and what to do, nothing is left
behind, and the next open finds all that was acknowledged, with and without a power cut in between.

`python -m tests.support.storage_runner` fails every call of every operation; here are some of each.
"""

from __future__ import annotations

import errno
import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import storage_runner
from tests.support.compiled import build as build_support
from tests.support.failing import BOTH, SIDES, Control, build, environment_of
from tests.support.storage_acts import FORGETS, SWALLOWS
from tests.support.storage_case import Case
from tests.support.storage_runner import Runner

pytestmark = [
    pytest.mark.skipif(shutil.which("gcc") is None, reason="the shim needs gcc"),
    pytest.mark.timeout(300),
]

#: What must have failed in a quick run, on either side.
KINDS = {"open", "write", "fsync", "msync", "fallocate", "flock", "mmap", "close", "statfs"}


@pytest.fixture(scope="module")
def runner() -> Iterator[Runner]:
    if not Path("/dev/shm").is_dir():
        pytest.skip("there is no /dev/shm")
    build_support("_hooked_media")
    with Runner() as started:
        yield started


def wrong(verdicts):
    return [
        f"{each.case} {each.failed}: {each.outcome}: {w}" for each in verdicts for w in each.wrong
    ]


def test_calls_that_fail(runner, capsys):
    verdicts = [runner.run(case) for case in storage_runner.quick(seed=0)]
    with capsys.disabled():
        print(f"\n{storage_runner.table(verdicts)}")
    assert not wrong(verdicts)
    for side in SIDES:
        assert {
            each.case.kind for each in verdicts if each.failed and each.case.side == side
        } >= KINDS


@pytest.mark.parametrize("layout", ["plain", "pair"])
def test_every_flush_of_a_persist_fails(runner, layout):
    for side in SIDES if layout == "pair" else ["initiator"]:
        first = Case("persist", layout, side, "msync", 1, errno.EIO)
        verdicts = list(storage_runner.until_it_passes(runner, first))
        assert not wrong(verdicts)
        assert [each.outcome for each in verdicts] == ["FlushFailed", "passed"]


# --- descriptors ------------------------------------------------------------------------------


def test_descriptors_run_out(runner):
    verdicts = list(storage_runner.few_descriptors(runner, "open", "plain", "initiator"))
    assert not wrong(verdicts)
    assert len(verdicts) > 1


@pytest.mark.slow
@pytest.mark.parametrize("operation", ["create", "open", "attach-new", "restore"])
@pytest.mark.parametrize("side", list(SIDES))
def test_descriptors_run_out_with_a_replica(runner, operation, side):
    verdicts = list(storage_runner.few_descriptors(runner, operation, "pair", side))
    assert not wrong(verdicts)
    assert len(verdicts) > 2


@pytest.mark.slow
@pytest.mark.timeout(6000)
def test_every_call_fails_once(record_property):
    """The figures are in build/storage.json; a run that was cut short is gone on with."""
    wrong = storage_runner.run_whole()
    figures = json.loads(storage_runner.FIGURES.read_text())
    record_property("failed calls", figures["failed calls"])
    assert wrong == []


# --- the checks themselves --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("case", "words"),
    [
        pytest.param(
            Case("persist", "plain", "initiator", "msync", 1, errno.EIO, broken=SWALLOWS),
            ["durable on the local copy", "marked clean"],
            id="a flush whose error is ignored",
        ),
        pytest.param(
            # The end of the pool compares what was stored, and flushes it there once more.
            Case("persist", "pair", "target", "msync", 1, errno.EIO, broken=SWALLOWS),
            ["as if the failed flush had succeeded"],
            id="a flush of the target whose error is ignored",
        ),
        pytest.param(
            Case("persist", "plain", "initiator", "msync", 1, errno.EIO, broken=FORGETS),
            ["durable on the local copy", "marked clean"],
            id="a refusal that only the call that failed is told of",
        ),
        pytest.param(
            Case(
                "persist",
                "pair",
                "initiator",
                "msync",
                1,
                errno.EIO,
                broken="marks whatever happened",
            ),
            ["another one on the replica"],
            id="a close that marks what it did not flush",
        ),
        pytest.param(
            Case("create", "plain", broken="leaves names to luck"),
            ["names that are not durable"],
            id="a name that is not flushed",
        ),
        pytest.param(
            Case("create", "plain", "initiator", "msync", 1, errno.EIO, broken="leaves files"),
            ["left in here"],
            id="a creation that does not clean up",
        ),
        pytest.param(
            Case(
                "open", "plain", "initiator", "open", 2, errno.EMFILE, broken="raises plain errors"
            ),
            ["no RpmemError"],
            id="an error of the system's",
        ),
    ],
)
def test_a_broken_promise_is_noticed(runner, case, words):
    found = " ".join(runner.run(case).wrong)
    assert all(each in found for each in words), found


#: What the shim calls the system calls that touch a file, a name, a lock or a mapping.
SYSCALLS = {
    "open": "open", "openat": "open", "creat": "open",
    "write": "write", "pwrite64": "write", "writev": "write", "pwritev": "write",
    "pwritev2": "write",
    "fsync": "fsync", "fdatasync": "fsync",
    "fallocate": "fallocate", "ftruncate": "truncate", "truncate": "truncate",
    "rename": "rename", "renameat": "rename", "renameat2": "rename",
    "link": "link", "linkat": "link", "symlink": "link", "symlinkat": "link",
    "unlink": "unlink", "unlinkat": "unlink", "rmdir": "unlink",
    "mkdir": "mkdir", "mkdirat": "mkdir",
    "chmod": "chmod", "fchmod": "chmod", "fchmodat": "chmod", "fchmodat2": "chmod",
    "flock": "flock", "mmap": "mmap", "dup": "dup", "dup2": "dup", "dup3": "dup",
    "fcntl": "fcntl",
}  # fmt: skip
#: What strace shows beside them, and what changes nothing.
HARMLESS = {
    "access", "faccessat", "faccessat2", "stat", "lstat", "newfstatat", "fstat", "statx",
    "readlink", "readlinkat", "getdents64", "lseek", "ioctl", "read", "pread64", "readv",
    "close", "fstatfs", "statfs", "fadvise64", "execve", "chdir", "getcwd", "poll", "msync",
    "munmap",
}  # fmt: skip

#: A life of a pool with a replica, all calls of which are looked at.
LIFE = """
import sys
from pathlib import Path
from tests.support.storage_operations import *
from tests.support.failing import Control
for layout in (PAIR, PAIR_OF_PARTS):
    world = World(Path(sys.argv[1]) / layout.name, layout, Control(Path(sys.argv[2])))
    world.lay_out()
    filled(world)
    with world.open() as pool:
        pool.array("b", 100)
        del pool["b"]
        pool.detach(0)
        pool.attach(world.replicas[0])
    FilePlace(world.local).remove(pool_set_too=False)
    rpmem.Pool.restore(world.local, world.replicas[0], **world.session).close()
    with rpmem.open(world.target, "a.set", bytearray(2 << 20), **world.session) as replica:
        # Those of a pool with epochs: signature and id stay.
        replica.set_attributes(replica.attributes.replaced(user_flags=b"u" * 16))
    rpmem.remove(world.target, "a.set", pool_set=True, timeout=TIMEOUT)
"""


def traced(directory, under):
    """Count the calls below a directory that strace has written down."""
    counts = Counter()
    unknown = Counter()
    for path in directory.glob("trace.*"):
        for line in path.read_text(errors="replace").splitlines():
            name, _, rest = line.partition("(")
            arguments = rest.rpartition(" = ")[0]
            if name == "msync" or (str(under) in arguments and name in SYSCALLS):
                counts[kind_of_call(name, arguments)] += 1
            elif str(under) in arguments and name not in HARMLESS:
                unknown[name] += 1
    del counts[None]
    return counts, unknown


def kind_of_call(name, arguments):
    if name != "fcntl":
        return SYSCALLS.get(name, name)
    if "F_DUPFD" in arguments:
        return "dup"
    return "fcntl-lock" if re.search(r"F_(OFD_)?SETLKW?", arguments) else None


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_the_shim_sees_what_strace_sees(tmp_path, tmpfs):
    under = tmpfs / "under"
    under.mkdir()
    page = tmpfs / "control"
    control = Control(page)
    added = environment_of(build(tmp_path), page, under, Path())
    added |= {"FAILING_MEDIUM": "", "PYTHONPATH": str(storage_runner.ROOT)}
    settings = [word for name, value in added.items() for word in ("-E", f"{name}={value}")]
    trace = ["strace", "-ff", "-y", "-qq", "-o", str(tmp_path / "trace")]
    program = [sys.executable, "-P", "-c", LIFE, str(under), str(page)]
    with control.armed(BOTH):
        done = subprocess.run(
            [*trace, *settings, *program], cwd=storage_runner.ROOT, capture_output=True, text=True
        )
    if "ptrace" in done.stderr and done.returncode:
        pytest.skip(f"strace cannot trace here: {done.stderr.splitlines()[0]}")
    assert done.returncode == 0, done.stderr
    counts, unknown = traced(tmp_path, under)
    assert not unknown, f"calls that nobody has thought of: {unknown}"
    seen = Counter(call.kind for call in control.calls)
    assert {kind: n for kind, n in seen.items() if kind in counts} == dict(counts)
    assert {"open", "write", "fsync", "msync", "fallocate", "flock", "mmap"} <= counts.keys()
