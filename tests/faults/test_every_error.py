"""Every error a user can meet, from the outside: its kind, its place, its remedy, and no traces."""

from __future__ import annotations

import contextlib
import gc
import os
import pwd
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import rpmem
from rpmem.base import environment
from rpmem.errors import (
    ArrayExists,
    ArrayNotFound,
    AttributesRefused,
    AuthenticationFailed,
    BufferRefused,
    ClosedError,
    ConfigError,
    ConnectFailed,
    ConnectionRefused,
    DaemonMissing,
    DeadlineExceeded,
    DtypeRefused,
    FabricFailure,
    FlushFailed,
    ForkedError,
    HeaderError,
    HostKeyUnknown,
    HostUnknown,
    LaneRefused,
    LaunchFailed,
    NoiseBeforeProtocol,
    NoSpace,
    PoolFull,
    PoolSetBusy,
    PoolSetDenied,
    PoolSetExists,
    PoolSetMalformed,
    PoolSetNameRefused,
    PoolSetNotFound,
    PoolSetTooSmall,
    ProviderUnavailable,
    RangeError,
    RegistrationFailed,
    ReplicaLost,
    RpmemError,
    TargetSyntaxError,
    VersionMismatch,
)
from rpmem.fabric import providers
from tests.support import fabrics, faulty_rpmemd
from tests.support.fabrics import TCP, needs_libfabric
from tests.support.lowtier import await_failure
from tests.support.processes import stop
from tests.support.sshd import ADDRESS, free_port, make_key
from tests.support.targets import ATTRIBUTES, Node
from tests.support.threads import in_use

SIZE = 2 << 20
PAGE = 4096
HANGS = 60.0


def started():
    """Return the child processes of all threads."""
    children = set()
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            children.update((task / "children").read_text().split())
    return children


def traces():
    """Return what a failed call could leave behind in this process."""
    gc.collect()
    children = started()
    # One whose thread is ending moves to another thread.
    while (again := started()) != children:
        children = again
    return len(os.listdir("/proc/self/fd")), in_use(), children


def is_more(now, before):
    return now[0] > before[0] or now[1] > before[1] or not now[2] <= before[2]


class Refused:
    """A call that has to fail.

    Attributes
    ----------
    error : RpmemError
        How it did.
    """

    def __init__(self, kind, call, *, place=None, remedy=None):
        providers.load("stream")
        before = traces()
        with pytest.raises(RpmemError) as caught:
            call()
        self.error = caught.value
        self.error.__traceback__ = self.error.__context__ = self.error.__cause__ = None
        del caught
        text = str(self.error)
        assert type(self.error) is kind, f"{type(self.error).__name__}: {text}"
        assert text.isprintable()
        for words in (place, remedy):
            if words is not None:
                assert words in text, text
        if remedy is not None:
            assert text.endswith((".", "!", ")")), f"there is no remedy in: {text}"
        assert kind.code == self.error.code
        # Threads of paramiko need a moment to see that their connection is over.
        deadline = time.monotonic() + 10.0
        while is_more(traces(), before) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not is_more(traces(), before), "something is left behind"


@pytest.fixture
def node(tmp_path):
    return Node.local(tmp_path / "node")


@pytest.fixture(params=["openssh", "paramiko"])
def remote(request, tmp_path, ssh_node):
    """A node behind sshd, for each launcher."""
    node = Node.over_ssh(tmp_path / "node", ssh_node, request.param, timeout=30.0)
    node.create(bytearray(SIZE), "warm.set").close(remove=True)
    return node


@pytest.fixture
def client(sshd, monkeypatch):
    """Make ssh and paramiko use another client configuration."""

    def use(name, **options):
        script = sshd.client(name, **options)
        monkeypatch.setenv("RPMEM_SSH", str(script))
        monkeypatch.setenv("HOME", str(sshd.directory / f"{name}_home"))
        environment.current.cache_clear()

    yield use
    monkeypatch.undo()
    environment.current.cache_clear()


@pytest.fixture(autouse=True)
def fresh_environment():
    environment.current.cache_clear()
    yield
    environment.current.cache_clear()


# --- reaching the target -----------------------------------------------------------------------


def test_unknown_host(remote):
    remote.target = "node9.invalid"
    refused = Refused(
        HostUnknown, lambda: remote.create(bytearray(SIZE)), place="node9.invalid", remedy="name"
    )
    assert isinstance(refused.error, ConnectionError)


def test_connection_refused(remote):
    remote.target = f"{ADDRESS}:{free_port()}"
    refused = Refused(
        ConnectionRefused, lambda: remote.create(bytearray(SIZE)), place=ADDRESS, remedy="sshd"
    )
    assert isinstance(refused.error, ConnectionRefusedError)


def test_host_key_unknown(remote, sshd, client):
    empty = sshd.directory / "nobody_known"
    empty.write_text("")
    client("strange", known_hosts=empty)
    Refused(
        HostKeyUnknown, lambda: remote.create(bytearray(SIZE)), place=remote.target, remedy="ssh"
    )


def test_authentication_failed(remote, sshd, client):
    client("nobody", identity=make_key(sshd.directory / "key_of_nobody"))
    Refused(
        AuthenticationFailed,
        lambda: remote.create(bytearray(SIZE)),
        place=remote.target,
        remedy="ssh-add",
    )


def test_rpmemd_missing(remote):
    remote.options["command"] = "rpmemd-that-is-not-there"
    Refused(
        DaemonMissing,
        lambda: remote.create(bytearray(SIZE)),
        place=f"rpmemd-that-is-not-there: command not found on {remote.target}",
        remedy="RPMEM_CMD",
    )


def test_a_login_shell_that_prints(remote, sshd):
    if Path(pwd.getpwuid(os.getuid()).pw_shell).name != "bash":
        pytest.skip("the login shell is not bash, whose start-up file this test writes")
    sshd.set_bashrc("echo Welcome")
    Refused(
        NoiseBeforeProtocol,
        lambda: remote.create(bytearray(SIZE)),
        place=f"{remote.target}'s login shell printed 'Welcome' before the protocol",
        remedy="print",
    )


def python(code):
    return f"{shlex.quote(sys.executable)} -c {shlex.quote(code)}"


def test_versions_that_do_not_match(node):
    root = str(Path(rpmem.__file__).parents[1])
    hello = (
        "import sys, time\n"
        f"sys.path.insert(0, {root!r})\n"
        "from rpmem.control.messages import Hello\n"
        "hello = Hello(software='rpmemd 77', version=77, min_version=70)\n"
        "sys.stdout.buffer.write(bytes(4) + hello.encode(1, limit=1 << 16))\n"
        "sys.stdout.flush()\n"
        "time.sleep(0.5)\n"
    )
    Refused(
        VersionMismatch,
        lambda: node.create(bytearray(SIZE), command=python(hello), timeout=20.0),
        place=node.target,
        remedy="77",
    )


def test_a_daemon_that_refuses_its_configuration(node):
    command = f"{sys.executable} -P -m rpmemd --poolset-dir relative"
    target = Node(node.directory, "local:", {**node.options, "command": command})
    refused = Refused(LaunchFailed, lambda: target.create(bytearray(SIZE)), place="this machine")
    assert "poolset-dir" in str(refused.error)


# --- pool sets ---------------------------------------------------------------------------------


@pytest.fixture(params=["local", "openssh"])
def any_node(request, tmp_path):
    if request.param == "local":
        return Node.local(tmp_path / "node")
    return Node.over_ssh(tmp_path / "node", request.getfixturevalue("ssh_node"), request.param)


def test_pool_set_missing(any_node):
    for call in (
        lambda: any_node.open(bytearray(SIZE), "no.set"),
        lambda: any_node.create(bytearray(SIZE), "no.set", parts=0),
        lambda: any_node.remove("no.set"),
    ):
        refused = Refused(PoolSetNotFound, call, place=any_node.target, remedy="name")
        assert "no.set" in str(refused.error)
        assert isinstance(refused.error, FileNotFoundError)
    assert any_node.files() == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("PMEMPOOLSET\nnonsense\n", "2"),
        ("PMEMPOOLSET\n10 /relative\n", "2"),
        ("not a pool set\n", "bad.set"),
        ("PMEMPOOLSET\n", "part"),
    ],
)
def test_pool_set_malformed(any_node, text, words):
    (any_node.directory / "bad.set").write_text(text)
    refused = Refused(
        PoolSetMalformed,
        lambda: any_node.create(bytearray(SIZE), "bad.set", parts=0),
        place=any_node.target,
    )
    assert "bad.set" in str(refused.error)
    assert words in str(refused.error)
    assert any_node.files() == ["bad.set"]


def test_pool_set_too_small(any_node):
    (any_node.directory / "small.set").write_text(f"PMEMPOOLSET\n2M {any_node.directory}/small\n")
    refused = Refused(
        PoolSetTooSmall,
        lambda: any_node.create(bytearray(SIZE + 1), "small.set", parts=0),
        place=any_node.target,
        remedy="part",
    )
    assert str(SIZE) in str(refused.error)
    assert any_node.files() == ["small.set"]
    any_node.create(bytearray(SIZE), "small.set", parts=0).close()
    Refused(
        PoolSetTooSmall,
        lambda: any_node.open(bytearray(SIZE + 1), "small.set"),
        place=any_node.target,
    )


def test_pool_set_busy(any_node):
    with any_node.create(bytearray(SIZE)) as replica:
        replica.persist(PAGE, 8)
        for call in (
            lambda: any_node.open(bytearray(SIZE)),
            lambda: any_node.create(bytearray(SIZE), parts=0),
            lambda: any_node.remove(),
        ):
            Refused(PoolSetBusy, call, place=any_node.target)
        replica.persist(PAGE, 8)
    assert any_node.files() == ["a.set", "a.set.part0"]


def test_already_there(any_node):
    with any_node.create(bytearray(SIZE)) as replica:
        replica.persist(PAGE, 8)
    image = any_node.image()
    refused = Refused(
        PoolSetExists,
        lambda: any_node.create(bytearray(SIZE)),
        place=any_node.target,
        remedy="Remove",
    )
    assert isinstance(refused.error, FileExistsError)
    assert any_node.image() == image


@pytest.mark.parametrize("name", ["../up.set", "/etc/passwd", "a/../../b", "a\nb", ""])
def test_names_that_leave_the_directory(any_node, name):
    for call in (
        lambda: any_node.open(bytearray(SIZE), name),
        lambda: any_node.create(bytearray(SIZE), name),
    ):
        with pytest.raises(RpmemError) as caught:
            call()
        assert isinstance(caught.value, PoolSetNameRefused | rpmem.UsageError)
    assert any_node.files() == []


def test_not_allowed(tmp_path):
    if os.getuid() == 0:
        pytest.skip("root may read and write everything")
    node = Node.local(tmp_path / "node")
    node.directory.chmod(0o500)
    try:
        Refused(PoolSetDenied, lambda: node.create(bytearray(SIZE)), place=node.target)
    finally:
        node.directory.chmod(0o700)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 5 MiB."""
    directory = tmp_path / "disk"
    directory.mkdir()
    if os.getuid() != 0 or not shutil.which("mount"):
        pytest.skip("only root can mount a small file system")
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=5m", "rpmem-test", directory],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    try:
        yield directory
    finally:
        subprocess.run(["umount", "-l", directory], check=True)


def test_no_space(small_disk):
    node = Node(small_disk, f"local:{small_disk}", {"timeout": 30.0})
    refused = Refused(NoSpace, lambda: node.create(bytearray(8 << 20), parts=2), place=node.target)
    assert "No space left" in str(refused.error)
    assert node.files() == [], "something is left behind"
    free = os.statvfs(small_disk)
    assert free.f_bavail == free.f_blocks
    with node.create(bytearray(4 << 20), parts=2) as replica:
        replica.persist(PAGE, 1 << 20)


def test_no_space_keeps_the_administrators_file(small_disk):
    node = Node(small_disk, f"local:{small_disk}", {"timeout": 30.0})
    text = f"PMEMPOOLSET\n2M {small_disk}/one\n4M {small_disk}/two\n"
    (small_disk / "mine.set").write_text(text)
    Refused(NoSpace, lambda: node.create(bytearray(SIZE), "mine.set", parts=0), place=node.target)
    assert node.files() == ["mine.set"]
    assert (small_disk / "mine.set").read_text() == text


def test_no_space_for_a_local_pool(small_disk):
    Refused(NoSpace, lambda: rpmem.Pool.create(small_disk / "p", "8MiB"), place=str(small_disk))
    assert list(small_disk.iterdir()) == []


def test_attributes_and_headers_that_do_not_fit(node):
    (node.directory / "plain.set").write_text(
        f"PMEMPOOLSET\nOPTION NOHDRS\n2M {node.directory}/plain\n"
    )
    Refused(
        AttributesRefused,
        lambda: node.create(bytearray(SIZE), "plain.set", parts=0),
        place=node.target,
    )
    node.create(bytearray(SIZE)).close()
    with open(node.directory / "a.set.part0", "r+b") as part:
        part.seek(100)
        part.write(b"\xff" * 20)
    Refused(HeaderError, lambda: node.open(bytearray(SIZE)), place=node.target)


# --- the fabric --------------------------------------------------------------------------------


@needs_libfabric
def test_providers_that_are_not_there(node):
    Refused(
        ProviderUnavailable,
        lambda: node.create(bytearray(SIZE), provider="warp"),
        place=node.target,
        remedy="fi_info",
    )
    assert node.files() == []


@pytest.mark.parametrize("provider", ["stream", TCP])
def test_steps_that_are_not_there(node, provider):
    refused = Refused(
        FabricFailure,
        lambda: node.create(bytearray(SIZE), provider=provider, step="read-after-write"),
        place=node.target,
        remedy="--persist-apm",
    )
    assert "send-after-write" in str(refused.error)
    assert node.files() == [], "the target keeps no pool that nobody uses"


def test_locked_memory(node):
    """Only providers that pin what they register are limited by it."""
    provider = "verbs"
    try:
        opened = providers.load(provider).Fabric(provider, "127.0.0.1", listen=True)
    except RpmemError as absent:
        pytest.skip(f"tcp and sockets pin no memory, and there is no RDMA device: {absent}")
    opened.close()
    soft, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (1 << 16, hard))
    try:
        Refused(
            RegistrationFailed,
            lambda: node.create(bytearray(SIZE), provider=provider),
            place=node.target,
            remedy="ulimit -l",
        )
    finally:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (soft, hard))


@pytest.mark.parametrize("provider", ["stream", TCP])
def test_lanes_cut_off_on_the_way(node, monkeypatch, provider):
    """A firewall, as far as the initiator can tell: the port it is told is not to be had."""
    from rpmem.session import lanes

    class Elsewhere(lanes.Lanes):
        def __init__(self, ready, *arguments, **options):
            super().__init__(ready.replaced(port=free_port()), *arguments, **options)

    monkeypatch.setattr("rpmem.session.replica.Lanes", Elsewhere)
    before = traces()
    with pytest.raises((ConnectFailed, DeadlineExceeded)) as caught:
        node.create(bytearray(SIZE), timeout=3.0, provider=provider, command=fabrics.over_tcp())
    assert node.target in str(caught.value)
    del caught
    assert not is_more(traces(), before)
    assert node.files() == []


# --- what the caller gives ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: bytes(SIZE), "bytes"),
        (lambda: memoryview(bytearray(SIZE)).toreadonly(), "memoryview"),
        (lambda: memoryview(bytearray(2 * SIZE))[::2], "memoryview"),
        (lambda: np.zeros((64, SIZE // 64))[:, ::2], "ndarray"),
        (lambda: np.asfortranarray(np.zeros((8, 9))), "ndarray"),
        (lambda: b"", "bytes"),
        (lambda: bytearray(), "bytearray"),
        (lambda: "text", "str"),
        (lambda: [0] * 100, "list"),
        (lambda: None, "NoneType"),
        (lambda: 7, "int"),
    ],
    ids=["bytes", "read-only", "strided", "columns", "fortran", "empty-bytes", "empty", *"slni"],
)
def test_buffers_that_cannot_be_replicated(node, make, words):
    buffer = make()
    refused = Refused(BufferRefused, lambda: node.create(buffer), place=words)
    assert isinstance(refused.error, TypeError)
    assert node.files() == []


@pytest.mark.parametrize(
    ("offset", "length"),
    [(SIZE, 1), (SIZE - 1, 2), ((1 << 64) - 8, 16), (1 << 63, 1 << 63), (-1, 8), (0, SIZE + 1)],
)
def test_ranges_outside_and_wrapping(node, offset, length):
    with node.create(bytearray(SIZE)) as replica:
        refused = Refused(RangeError, lambda: replica.persist(offset, length), place="pool")
        assert isinstance(refused.error, IndexError)
        assert isinstance(refused.error, ValueError)
        replica.persist(PAGE, 8)


def test_the_header_is_not_persisted(node):
    with node.create(bytearray(SIZE)) as replica:
        Refused(RangeError, lambda: replica.persist(0, 8), place="header", remedy="set_attributes")


@pytest.mark.parametrize(
    "target", ["", "user@", "host:port", "[::1", "host:99999", "local:not/abs"]
)
def test_targets_that_are_none(target):
    Refused(
        TargetSyntaxError,
        lambda: rpmem.create(target, "a.set", bytearray(SIZE)),
        place=repr(target) if target else None,
        remedy="",
    )


def test_environment_variables_that_make_no_sense(node, monkeypatch):
    monkeypatch.setenv("RPMEM_TIMEOUT", "soon")
    Refused(
        ConfigError,
        lambda: rpmem.create(node.target, "a.set", bytearray(SIZE)),
        place="RPMEM_TIMEOUT",
    )


def test_lanes_that_are_not_there(node):
    Refused(LaneRefused, lambda: node.create(bytearray(SIZE), nlanes=0), place="lanes")
    with node.create(bytearray(SIZE), nlanes=2) as replica:
        Refused(LaneRefused, lambda: replica.persist(PAGE, 8, lane=2), place="lanes 0 to 1")


# --- sessions ----------------------------------------------------------------------------------


def test_use_after_close(node):
    replica = node.create(bytearray(SIZE))
    replica.close()
    Refused(ClosedError, lambda: replica.persist(PAGE, 8), place=node.target)


def test_use_after_fork(node):
    with node.create(bytearray(SIZE)) as replica:
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                replica.persist(PAGE, 8)
            except ForkedError as error:
                status = 0 if "parent" in str(error) and error.hint else 2
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_a_target_that_dies(any_node):
    replica = any_node.create(bytearray(SIZE))
    os.kill(replica.peer.pid, signal.SIGKILL)
    await_failure(replica)
    refused = Refused(
        ReplicaLost, lambda: replica.persist(PAGE, 8), place=any_node.target, remedy="Open"
    )
    assert isinstance(refused.error, ConnectionError)
    replica.close()


def test_a_target_that_is_silent(node):
    replica = node.create(bytearray(SIZE), timeout=1.0)
    stop(replica.peer.pid)
    refused = Refused(
        DeadlineExceeded, lambda: replica.persist(PAGE, 8), place=node.target, remedy=""
    )
    assert isinstance(refused.error, TimeoutError)
    os.kill(replica.peer.pid, signal.SIGKILL)
    replica.close()


def test_a_medium_that_refuses(node):
    """The target's file system takes no more: its flush fails, and the caller is told."""
    node.options["command"] = faulty_rpmemd.command()
    replica = node.create(bytearray(SIZE), nlanes=2)
    replica.persist(SIZE - 64, 64)
    resource.prlimit(replica.peer.pid, resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
    replica.persist(PAGE, 64)
    refused = Refused(
        FlushFailed, lambda: replica.persist(SIZE - 64, 64), place=node.target, remedy="durable"
    )
    assert "File too large" in str(refused.error)
    with pytest.raises(FlushFailed):
        replica.persist(PAGE, 64)
    assert isinstance(replica.failure, FlushFailed)
    replica.close()


# --- arrays ------------------------------------------------------------------------------------


def test_arrays(tmp_path):
    place = tmp_path / "pool"
    with rpmem.Pool.create(place, "2MiB") as pool:
        pool.array("a", 10)
        Refused(ArrayExists, lambda: pool.array("a", 11), place="'a'", remedy="pool[name]")
        refused = Refused(ArrayNotFound, lambda: pool["b"], place="'b'")
        assert isinstance(refused.error, KeyError)
        refused = Refused(
            DtypeRefused, lambda: pool.array("o", 3, object), place="object", remedy="S16"
        )
        assert isinstance(refused.error, TypeError)
        Refused(PoolFull, lambda: pool.array("big", 1 << 30), place="8589934592", remedy="Delete")
        assert pool.names() == ["a"]


def test_every_kind_is_met_somewhere():
    """A kind that no test provokes is either dead or untested."""
    kinds = {kind.__name__ for kind in rpmem.errors.KINDS.values()}
    text = "".join(
        path.read_text() for path in Path(__file__).resolve().parents[1].rglob("test_*.py")
    )
    assert {name for name in kinds if name not in text} == set()


def test_attributes_of_errors_survive_copies():
    import copy
    import pickle

    for kind in rpmem.errors.KINDS.values():
        error = kind("it broke", where="node2", hint="Mend it", errno=5)
        for same in (copy.copy(error), pickle.loads(pickle.dumps(error))):
            assert type(same) is kind
            assert str(same) == str(error)
            assert (same.code, same.errno, same.where, same.hint) == (
                error.code,
                5,
                "node2",
                "Mend it",
            )
    assert ATTRIBUTES.signature == b"TESTPOOL"
