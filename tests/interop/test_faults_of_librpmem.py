"""What is wrong with PMDK's librpmem, shown on the original, and right with our initiator.

Both are given the same targets; ours speaks its own protocol to our daemon where that is the
question, and PMDK's to the original daemon where the daemon matters.
"""

from __future__ import annotations

import errno
import os
import shlex
import signal
import time
from collections.abc import Callable
from pathlib import Path
from threading import Timer
from typing import Any

import pytest

import rpmem
from rpmem import Replica
from rpmem.errors import (
    AuthenticationFailed,
    ConnectionRefused,
    DaemonMissing,
    DeadlineExceeded,
    HostKeyUnknown,
    HostUnknown,
    LaunchError,
    NoiseBeforeProtocol,
    RangeError,
    ReplicaLost,
)
from tests.interop.support.attributes import Attributes
from tests.interop.support.calls import SIZE, created
from tests.interop.support.client import NoAnswer, RpmemClient
from tests.interop.support.node import ORIGINAL, OURS, Node, daemon_words
from tests.interop.support.originals import Originals
from tests.interop.support.ours import OurInitiator
from tests.support.processes import stop
from tests.support.sshd import Sshd, free_port, make_key

Starter = Callable[..., RpmemClient]
#: Long enough to tell a wait from a hang on a loaded machine.
HANGS = 4


def librpmem_errno(client: RpmemClient, host: str, name: str, timeout: float = 60) -> int:
    """Return librpmem's errno for a create."""
    client.do("pool", SIZE)
    client.do("attr", Attributes().hex())
    return client.errno("create", host, name, 1, timeout=timeout)


def other_key(sshd: Sshd) -> Path:
    """Return a key that the server does not know."""
    return make_key(sshd.directory / "another_key")


@pytest.mark.own_login
class TestStarting:
    """librpmem flattens everything that goes wrong with ssh into one errno."""

    daemon = OURS

    @pytest.mark.parametrize(
        ("case", "kind"),
        [
            ("no daemon", DaemonMissing),
            ("refused key", AuthenticationFailed),
            ("unknown host key", HostKeyUnknown),
            ("nothing listens", ConnectionRefused),
        ],
    )
    def test_ssh_errors(
        self,
        librpmem: Starter,
        ours: OurInitiator,
        node: Node,
        sshd_session: Sshd,
        case: str,
        kind: type[LaunchError],
    ) -> None:
        host, settings = node.host, {}
        if case == "no daemon":
            settings["RPMEM_CMD"] = "/nowhere/rpmemd"
        elif case == "refused key":
            ssh = sshd_session.client("wrong_key", identity=other_key(sshd_session))
            settings["RPMEM_SSH"] = str(ssh)
        elif case == "unknown host key":
            nobody = sshd_session.directory / "empty_known_hosts"
            nobody.write_text("")
            settings["RPMEM_SSH"] = str(sshd_session.client("unknown_host", known_hosts=nobody))
        else:
            host = f"127.0.0.1:{free_port()}"
        name = node.make_set(SIZE)
        with librpmem(**settings) as client:
            assert librpmem_errno(client, host, name) == errno.ECONNRESET
        for variable, value in settings.items():
            ours.set_variable(variable, value)
        node.host = host
        with pytest.raises(kind) as caught:
            ours.create(bytearray(SIZE), name)
        assert host.split(":")[0] in str(caught.value)
        assert caught.value.hint

    def test_a_host_that_does_not_exist(
        self, librpmem: Starter, ours: OurInitiator, node: Node
    ) -> None:
        with librpmem() as client:
            host = "no-such-host.invalid"
            assert librpmem_errno(client, host, "a.set") == errno.ENOMEDIUM
        node.host = host
        with pytest.raises(HostUnknown, match=host):
            ours.create(bytearray(SIZE), "a.set")

    def test_a_login_shell_that_greets(
        self, librpmem: Starter, ours: OurInitiator, node: Node
    ) -> None:
        node.daemon = ["sh", "-c", 'echo Welcome to node2; exec "$@"', "sh", *node.daemon]
        ours.command()
        name = node.make_set(SIZE)
        with librpmem() as client:
            assert librpmem_errno(client, node.host, name) == int.from_bytes(b"Welc", "little")
        with pytest.raises(NoiseBeforeProtocol, match="Welcome to node2"):
            ours.create(bytearray(SIZE), name)

    def test_a_target_that_says_nothing(
        self, librpmem: Starter, ours: OurInitiator, node: Node
    ) -> None:
        client = librpmem(RPMEM_CMD="sleep 60")
        with pytest.raises(NoAnswer, match="no answer"):
            librpmem_errno(client, node.host, "a.set", timeout=HANGS)
        client.kill()
        ours.set_variable("RPMEM_CMD", "sleep 60")
        begun = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            ours.create(bytearray(SIZE), "a.set", timeout=2.0)
        assert time.monotonic() - begun < 30


def note_pid(node: Node) -> Callable[[], int]:
    """Have a node's daemon leave its process id."""
    path = node.folder / "pid"
    words = shlex.join(["sh", "-c", 'echo $$ >"$0"; exec "$@"', str(path)])
    node.daemon = [*shlex.split(words), *node.daemon]
    return lambda: int(path.read_text())


def persist_until_it_fails(replica: Replica) -> None:
    """Persist again and again."""
    while True:
        replica.persist(4096, 64)


class TestWaiting:
    """librpmem waits for ever for a target that is silent."""

    daemon = ORIGINAL

    def test_a_target_that_stops(
        self, librpmem: Starter, ours: OurInitiator, node: Node, originals: Originals
    ) -> None:
        pid = note_pid(node)
        client = librpmem()
        created(client, node, node.make_set(SIZE))
        stop(pid())
        with pytest.raises(NoAnswer, match="no answer"):
            client.ask("persist", 4096, 64, 0, 1, timeout=HANGS)
        client.kill()
        os.kill(pid(), signal.SIGKILL)
        for which in (ORIGINAL, OURS):
            node.daemon = daemon_words(which, originals)
            pid = note_pid(node)
            ours.command()
            replica = ours.create(bytearray(SIZE), node.make_set(SIZE), timeout=2.0)
            stop(pid())
            begun = time.monotonic()
            with pytest.raises(DeadlineExceeded):
                replica.persist(4096, 64)
            assert time.monotonic() - begun < 30
            replica.close()
            os.kill(pid(), signal.SIGKILL)

    @pytest.mark.parametrize("which", [ORIGINAL, OURS])
    @pytest.mark.parametrize("when", ["between calls", "during a call"])
    def test_a_target_that_is_killed(
        self, originals: Originals, ours: OurInitiator, node: Node, which: str, when: str
    ) -> None:
        """PMDK's own tests of this run on verbs only; with sockets it depends on luck there."""
        node.daemon = daemon_words(which, originals)
        pid = note_pid(node)
        ours.command()
        replica = ours.create(bytearray(SIZE), node.make_set(SIZE), timeout=60.0)
        replica.persist(4096, 64)
        timer = Timer(0.5, os.kill, (pid(), signal.SIGKILL))
        if when == "during a call":
            stop(pid())
            timer.start()
        else:
            timer.start()
            timer.join()
        begun = time.monotonic()
        with pytest.raises(ReplicaLost) as caught:
            persist_until_it_fails(replica)
        assert time.monotonic() - begun < 30
        assert caught.value.errno == errno.ECONNRESET
        timer.join()
        replica.close()


class TestRanges:
    """Bounds that librpmem does not check."""

    daemon = ORIGINAL

    @pytest.mark.parametrize("offset", [SIZE - 8, SIZE, 1 << 40, (1 << 64) - 8])
    def test_reading_beyond_the_pool(
        self, librpmem: Starter, ours: OurInitiator, node: Node, offset: int
    ) -> None:
        client = librpmem()
        created(client, node, node.make_set(SIZE))
        with pytest.raises(NoAnswer):
            client.ask("read", offset, 16, 0, timeout=HANGS)
        client.kill()
        with ours.create(bytearray(SIZE), node.make_set(SIZE)) as replica:
            with pytest.raises(RangeError):
                replica.read(bytearray(16), offset)
            replica.persist(4096, 64)

    def test_a_range_that_wraps(self, librpmem: Starter, ours: OurInitiator, node: Node) -> None:
        length = (1 << 64) - 1
        client = librpmem()
        created(client, node, node.make_set(SIZE))
        with pytest.raises(NoAnswer):
            client.ask("persist", 4096, length, 0, 0, timeout=HANGS)
        client.kill()
        with ours.create(bytearray(SIZE), node.make_set(SIZE)) as replica:
            for call in (replica.persist, replica.flush, replica.deep_persist):
                with pytest.raises(RangeError):
                    call(4096, length)
            replica.persist(4096, 64)

    def test_a_bad_range_does_not_spoil_the_session(
        self, librpmem: Starter, ours: OurInitiator, node: Node
    ) -> None:
        with librpmem() as client:
            created(client, node, node.make_set(SIZE))
            assert client.errno("persist", SIZE, 1, 0, 0) == errno.EINVAL
            assert client.errno("persist", 4096, 16, 0, 0) == errno.EINVAL
        calls: list[tuple[Any, ...]] = [(SIZE, 1), (SIZE - 32, 33), (0, 16)]
        with ours.create(bytearray(SIZE), node.make_set(SIZE)) as replica:
            for offset, length in calls:
                with pytest.raises(RangeError):
                    replica.persist(offset, length)
            with pytest.raises(rpmem.LaneRefused):
                replica.persist(4096, 16, lane=99)
            replica.persist(4096, 16)
