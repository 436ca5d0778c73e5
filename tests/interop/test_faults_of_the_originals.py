"""What is wrong with PMDK's rpmemd, shown on the original, and right with ours.

Every test here asks the same of both. The faults of librpmem, the initiator, are in
test_faults_of_librpmem.py.
"""

from __future__ import annotations

import errno
import signal
import stat
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import rpmem
from rpmem.control import pmdk
from rpmem.control.events import AttributesSet, Closed, Opened, Refused
from rpmem.control.messages import SetAttributes
from rpmem.control.pmdk import Kind
from rpmem.control.pmdk_initiator import PmdkInitiatorSession
from rpmem.control.pmdk_status import Status
from rpmem.errors import FlushFailed, PoolSetNameRefused
from tests.interop.support.attributes import Attributes
from tests.interop.support.calls import created
from tests.interop.support.client import RpmemClient
from tests.interop.support.node import ORIGINAL, OURS, Node, daemon_words
from tests.interop.support.originals import Originals
from tests.interop.support.programs import program
from tests.interop.support.raw_target import (
    DEEP,
    FLUSH,
    SEND,
    SIZE,
    RawTarget,
    create_request,
    is_reply,
    start,
)

NodeMaker = Callable[[str], Node]
APM = {"options": ("--persist-apm",), "variables": {"PMEM_IS_PMEM_FORCE": "1"}}


@pytest.fixture
def nodes(tmp_path: Path, request: pytest.FixtureRequest) -> NodeMaker:
    """Nodes without ssh; that of the original skips where ``make peers`` has not been."""

    def make(which: str) -> Node:
        originals = request.getfixturevalue("originals") if which == ORIGINAL else None
        return Node(tmp_path / which, daemon_words(which, originals))

    return make


@pytest.fixture
def original(nodes: NodeMaker) -> Node:
    """A node with the original daemon."""
    return nodes(ORIGINAL)


@pytest.fixture
def ours(nodes: NodeMaker) -> Node:
    """A node with our daemon."""
    return nodes(OURS)


def errors_in(node: Node) -> list[str]:
    """Return what our daemon has logged as errors; one at least, which may take a moment."""
    deadline = time.monotonic() + 10
    while True:
        errors = [line for line in node.log.splitlines() if "] err: " in line]
        if errors or time.monotonic() > deadline:
            return errors
        time.sleep(0.02)


def answer_to(node: Node, request: bytes, kind: Kind) -> tuple[Status, int]:
    """Send a first request; returns the answer's status and the exit status."""
    with start(node) as daemon:
        daemon.start()
        daemon.send(request)
        due = pmdk.answer_to(kind)
        answer = daemon.receive_exactly(pmdk.ANSWER_SIZES[due])
        status = pmdk.decode_answer_header(answer, due).status
        return status, daemon.exit_status()


class TestOutOfBand:
    """Requests over the ssh connection."""

    def test_set_attributes_before_a_pool_is_open(self, original: Node, ours: Node) -> None:
        request = pmdk.encode_request(SetAttributes(attributes=Attributes().pack()))
        with start(original) as daemon:
            daemon.start()
            daemon.send(request)
            assert daemon.exit_status() == -signal.SIGABRT
        status, exit_status = answer_to(ours, request, Kind.SET_ATTRIBUTES)
        assert status is Status.FATAL
        assert exit_status == 1
        assert "SetAttributes came while" in errors_in(ours)[0]

    def test_no_lanes(self, original: Node, ours: Node) -> None:
        def request(node: Node, kind: Kind) -> bytes:
            whole = bytearray(pmdk.encode_request(create_request(node.make_set(SIZE))))
            struct.pack_into(">I", whole, 24, 0)
            if kind is Kind.OPEN:
                del whole[40:144]
                struct.pack_into(">IQ", whole, 0, kind, len(whole))
            return bytes(whole)

        with start(original) as daemon:
            daemon.start()
            daemon.send(request(original, Kind.CREATE))
            assert daemon.exit_status() == -signal.SIGABRT
        for kind in (Kind.CREATE, Kind.OPEN):
            status, exit_status = answer_to(ours, request(ours, kind), kind)
            assert status is Status.BADNLANES
            assert exit_status == 1
        assert len(errors_in(ours)) == 2
        assert "at least one lane" in errors_in(ours)[0]
        assert list(ours.parts.iterdir()) == []

    def test_all_zero_attributes_for_a_pool_with_a_header(self, original: Node, ours: Node) -> None:
        zero = bytes(104)
        with start(original) as daemon:
            session = PmdkInitiatorSession(where="the original")
            daemon.converse(session)
            session.create(create_request(original.make_set(SIZE)))
            daemon.converse(session)
            daemon.send(pmdk.encode_request(SetAttributes(attributes=zero)))
            assert daemon.exit_status() == -signal.SIGSEGV
        with RawTarget(ours) as target:
            target.daemon.send(pmdk.encode_request(SetAttributes(attributes=zero)))
            assert target.daemon.receive_exactly(16) == pmdk.encode_error(
                Kind.SET_ATTRIBUTES_ANSWER, Status.POOL_CFG
            )
            # The session goes on, and takes attributes that make sense.
            target.session.set_attributes(Attributes(major=9).pack())
            assert isinstance(target.daemon.converse(target.session), AttributesSet)
            assert target.served(0)
            assert isinstance(target.close(), Closed)

    @pytest.mark.parametrize(
        ("kind", "size"),
        [
            (Kind.CREATE, 13),
            (Kind.CREATE, 147),
            (Kind.OPEN, 43),
            (Kind.CLOSE, 12),
            (Kind.CLOSE, 13),
            (Kind.SET_ATTRIBUTES, 12),
            (Kind.SET_ATTRIBUTES, 115),
        ],
    )
    def test_short_messages(self, ours: Node, kind: Kind, size: int) -> None:
        with start(ours) as daemon:
            daemon.start()
            daemon.send(struct.pack(">IQ", kind, size) + bytes(size - 12))
            assert daemon.rest() == struct.pack("=i", errno.EPROTO)
            assert daemon.exit_status() == 1
        assert f"announces {size} bytes" in errors_in(ours)[0]

    def test_the_original_reads_short_messages_past_their_end(self, original: Node) -> None:
        with start(original) as daemon:
            daemon.start()
            daemon.send(struct.pack(">IQ", Kind.SET_ATTRIBUTES, 12))
            assert daemon.exit_status() == -signal.SIGABRT

    @pytest.mark.parametrize("size", [1 << 20, 1 << 33, 1 << 63, (1 << 64) - 1])
    @pytest.mark.parametrize("kind", [Kind.CREATE, Kind.OPEN, Kind.CLOSE, Kind.SET_ATTRIBUTES])
    def test_huge_messages(self, ours: Node, kind: Kind, size: int) -> None:
        with start(ours) as daemon:
            daemon.start()
            daemon.send(struct.pack(">IQ", kind, size))
            assert daemon.rest() == struct.pack("=i", errno.EPROTO)
            assert daemon.exit_status() == 1

    def test_the_original_allocates_what_it_is_told(self, original: Node) -> None:
        announced = 8 << 30
        with start(original) as daemon:
            daemon.start()
            daemon.send(struct.pack(">IQ", Kind.CREATE, announced))
            status = Path(f"/proc/{daemon.process.pid}/status")
            deadline = time.monotonic() + 10
            while virtual_size(status) < announced:
                assert time.monotonic() < deadline
                time.sleep(0.05)

    @pytest.mark.parametrize("length", [0, 1, 5, 7, 1 << 31, (1 << 32) - 1])
    def test_names_of_another_length_than_announced(self, ours: Node, length: int) -> None:
        request = bytearray(pmdk.encode_request(create_request("a.set")))
        struct.pack_into(">I", request, 144, length)
        status, exit_status = answer_to(ours, bytes(request), Kind.CREATE)
        assert status is Status.FATAL
        assert exit_status == 1

    @pytest.mark.parametrize("place", ["../outside.set", "sub/../../outside.set"])
    def test_names_that_leave_the_pool_set_directory(
        self, original: Node, ours: Node, place: str
    ) -> None:
        for node in (original, ours):
            (node.sets / "sub").mkdir()
            name = node.make_set(SIZE, name="outside.set")
            (node.sets / name).rename(node.folder / name)
            with start(node) as daemon:
                session = PmdkInitiatorSession(where="the daemon")
                daemon.converse(session)
                session.create(create_request(place))
                event = daemon.converse(session)
                if node is original:
                    assert isinstance(event, Opened)
                    assert node.part(name).exists()
                else:
                    assert isinstance(event, Refused)
                    assert isinstance(event.error, PoolSetNameRefused)
                    assert list(node.parts.iterdir()) == []
                    assert "points outside the pool set directory" in errors_in(node)[0]

    def test_parts_are_private(self, original: Node, ours: Node) -> None:
        modes = []
        for node in (original, ours):
            node.daemon = ["sh", "-c", 'umask 027; exec "$@"', "sh", *node.daemon]
            with RawTarget(node) as target:
                target.close()
                modes.append(stat.S_IMODE(node.part(target.name).stat().st_mode))
        assert modes == [0o666, 0o600]


def virtual_size(status: Path) -> int:
    """Return a process's VmSize in bytes."""
    for line in status.read_text().splitlines():
        if line.startswith("VmSize"):
            return int(line.split()[1]) << 10
    return 0


WRAP = (1 << 64) - 100


class TestInBand:
    """Messages on the lanes."""

    def test_flush_requests_under_apm(self, original: Node, ours: Node) -> None:
        with RawTarget(original, **APM) as target:
            target.ask(0, target.request(FLUSH, 0, 8192, 64), 500)
            assert target.daemon.exit_status() == -signal.SIGABRT
        with RawTarget(ours, **APM) as target:
            assert target.ready.steps == ("read-after-write",)
            ready = target.ready.lanes[0]
            message = ("write", 0, ready.address + 8192, ready.key, b"written".hex())
            assert target.lanes.ask(*message) == "written"
            for flags in (FLUSH, DEEP, 3):
                assert is_reply(target.ask(0, target.request(flags, 0, 8192, 7)), 0)
                assert target.lanes.ask("receive", 0, 64) == "posted"
            assert target.stored(8192, 7) == b"written"
            assert isinstance(target.close(), Closed)

    @pytest.mark.parametrize(
        ("flags", "offset", "size", "expected"),
        [
            (FLUSH, 4096, WRAP, "answered"),
            (DEEP, 4096, WRAP, "answered"),
            (FLUSH, -8, 16, "silent"),
            (FLUSH, SIZE, 1, "silent"),
            (FLUSH, SIZE - 8, 16, "silent"),
            (DEEP, 1 << 40, 16, "silent"),
        ],
        ids=["wrap", "deep-wrap", "before", "behind", "across", "far"],
    )
    def test_ranges_outside_the_pool(
        self, original: Node, ours: Node, flags: int, offset: int, size: int, expected: str
    ) -> None:
        with RawTarget(original) as target:
            answer = target.ask(0, target.request(flags, 0, offset, size), 1500)
            assert is_reply(answer, 0) == (expected == "answered"), answer
            if expected == "silent":
                assert answer == "timeout"
        with RawTarget(ours) as target:
            self.check_given_up(target, target.request(flags, 0, offset, size), "outside the pool")

    def check_given_up(self, target: RawTarget, message: bytes, why: str) -> None:
        """Ours hangs up, which is all that there is, says why in its log, and serves the others."""
        before = target.stored(0, 65536)
        assert target.lanes.ask("send", 0, message.hex() or "-") == "sent"
        assert target.lanes.ask("event", 5000) == "shutdown 0"
        assert target.lanes.ask("await", 0, 0) == "timeout"
        (line,) = errors_in(target.node)
        assert "lane 0 was given up" in line
        assert why in line
        assert target.stored(0, 65536) == before
        assert target.served(1)
        assert isinstance(target.close(), Closed)
        assert target.daemon.exit_status() == 0

    def test_data_beyond_the_pool(self, ours: Node) -> None:
        with RawTarget(ours) as target:
            message = target.request(SEND, 0, SIZE - 4, 8, b"x" * 8)
            self.check_given_up(target, message, "outside the pool")

    def test_fewer_data_than_announced(self, original: Node, ours: Node) -> None:
        """The original copies what was in its buffer before into the pool."""
        with RawTarget(original) as target:
            secret = b"of another message" * 10
            target.ask(0, target.request(SEND, 0, 8192, len(secret), secret))
            target.lanes.ask("receive", 0, 64)
            assert is_reply(target.ask(0, target.request(SEND, 0, 16384, len(secret), b"x")), 0)
            assert target.stored(16384, len(secret)) == b"x" + secret[1:]
        with RawTarget(ours) as target:
            self.check_given_up(target, target.request(SEND, 0, 16384, 180, b"x"), "protocol")

    @pytest.mark.parametrize("length", [0, 5, 23])
    def test_messages_without_a_whole_request(self, ours: Node, length: int) -> None:
        with RawTarget(ours) as target:
            self.check_given_up(target, bytes(length), "protocol")

    @pytest.mark.parametrize("flags", [FLUSH, DEEP, SEND])
    def test_more_data_than_announced(self, ours: Node, flags: int) -> None:
        with RawTarget(ours) as target:
            self.check_given_up(target, target.request(flags, 0, 8192, 2, b"three"), "protocol")

    @pytest.mark.parametrize("lane", [1, 2, 7, (1 << 32) - 1])
    def test_another_lanes_number(self, ours: Node, lane: int) -> None:
        with RawTarget(ours) as target:
            message = target.request(FLUSH, 0, 8192, 8, announced=lane)
            self.check_given_up(target, message, "protocol")

    def test_the_original_is_silent_about_a_wrong_lane(self, original: Node) -> None:
        with RawTarget(original) as target:
            message = target.request(FLUSH, 0, 8192, 8, announced=7)
            assert target.ask(0, message, 1500) == "timeout"

    def test_a_message_longer_than_its_buffer(self, original: Node, ours: Node) -> None:
        data = b"x" * 20000
        with RawTarget(original) as target:
            message = target.request(SEND, 0, 8192, len(data), data)
            assert target.ask(0, message, 1500) == "timeout"
        with RawTarget(ours) as target:
            self.check_given_up(target, target.request(SEND, 0, 8192, len(data), data), "protocol")


FAILING = 20480


@contextmanager
def failing_medium(node: Node) -> Iterator[None]:
    """Have the node's daemon run where flushing five pages at once fails."""
    words = node.daemon
    node.daemon = [str(program("failing_msync")), str(FAILING), *words]
    yield
    node.daemon = words


class TestFlushErrors:
    """What the medium refuses must not be acknowledged."""

    @pytest.mark.parametrize("mode", [FLUSH, DEEP])
    def test_a_refused_flush_is_not_answered_as_success(
        self, original: Node, ours: Node, mode: int
    ) -> None:
        with failing_medium(original), RawTarget(original) as target:
            assert is_reply(target.ask(0, target.request(mode, 0, 8192, FAILING)), 0)
        with failing_medium(ours), RawTarget(ours) as target:
            assert target.served(0)
            message = target.request(mode, 0, 8192, FAILING)
            assert target.lanes.ask("send", 0, message.hex()) == "sent"
            assert target.lanes.ask("event", 5000) == "shutdown 0"
            (line,) = errors_in(ours)
            assert "lane 0 was given up: the medium refused a flush" in line
            assert "Input/output error" in line
            assert not target.served(1)  # what refused once acknowledges nothing any more

    def test_librpmem_learns_of_it(
        self, originals: Originals, librpmem: Callable[..., RpmemClient], node: Node
    ) -> None:
        """The original library gets an error in time from ours, success from the original."""
        outcome = {}
        for which in (ORIGINAL, OURS):
            node.daemon = daemon_words(which, originals)
            with failing_medium(node), librpmem() as client:
                created(client, node, node.make_set(SIZE))
                client.do("persist", 8192, 4096, 0, 1)
                outcome[which] = client.errno("persist", 8192, FAILING, 0, 1, timeout=30)
                if which == OURS:
                    again = client.errno("persist", 8192, 64, 1, 1, timeout=30)
                    assert again == errno.ECONNRESET
                client.do("close")
        assert outcome == {ORIGINAL: 0, OURS: errno.ECONNRESET}

    @pytest.mark.parametrize("call", ["persist", "deep_persist", "flush"])
    def test_the_native_protocol_names_the_error(self, ours: Node, call: str) -> None:
        with failing_medium(ours):
            replica = rpmem.create(
                "local:",
                ours.make_set(SIZE),
                bytearray(SIZE),
                attributes=rpmem.PoolAttributes(signature=b"FAULTS!!", major=1),
                command=ours.command(),
                timeout=30.0,
            )
            replica.persist(8192, 4096)
            if call == "flush":
                replica.flush(8192, FAILING)
            with pytest.raises(FlushFailed, match="Input/output error") as caught:
                replica.drain() if call == "flush" else getattr(replica, call)(8192, FAILING)
            assert caught.value.errno == errno.EIO
            assert "the medium refused a flush" in errors_in(ours)[0]
            with pytest.raises(FlushFailed):
                replica.persist(8192, 8)
            replica.close()


class TestLaneLimit:
    """16 lanes, where the fabric has room for more."""

    def test_more_lanes_than_sixteen(self, ours: Node) -> None:
        with rpmem.create(
            "local:",
            ours.make_set(SIZE),
            bytearray(b"x" * SIZE),
            64,
            rpmem.PoolAttributes(signature=b"FAULTS!!", major=1),
            command=ours.command(),
            provider="tcp",
            timeout=60.0,
        ) as replica:
            assert replica.nlanes == 64
            for lane in range(64):
                replica.persist(4096 + 64 * lane, 64, lane=lane)
        assert ours.pool_bytes("pool0.set")[4096 : 4096 + 64 * 64] == b"x" * 4096

    def test_the_original_stops_at_sixteen(self, original: Node) -> None:
        with start(original) as daemon:
            session = PmdkInitiatorSession(where="the original")
            daemon.converse(session)
            session.create(create_request(original.make_set(SIZE), lanes=64))
            opened = daemon.converse(session)
            assert isinstance(opened, Opened)
            assert len(opened.ready.lanes) == 16
