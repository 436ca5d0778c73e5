"""The PMDK 0.1 codec against the original daemon, out-of-band only: no fabric, no ssh."""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rpmem.control import pmdk
from rpmem.control.events import AttributesSet, Event, Greeted, Opened, Refused, SessionFailed
from rpmem.control.messages import Close, Create, Open, SetAttributes
from rpmem.control.pmdk import Kind
from rpmem.control.pmdk_initiator import PmdkInitiatorSession
from rpmem.control.pmdk_status import Status
from rpmem.errors import (
    ConnectFailed,
    PoolSetBusy,
    PoolSetDenied,
    PoolSetExists,
    PoolSetMalformed,
    PoolSetNameRefused,
    PoolSetNotFound,
    PoolSetTooSmall,
    ProviderUnavailable,
    RemoteError,
    ReplicaLost,
    RpmemError,
)
from tests.interop.support.attributes import Attributes, header_block
from tests.interop.support.node import MIB, ORIGINAL, Node, daemon_words
from tests.interop.support.originals import Originals
from tests.interop.support.out_of_band import Daemon, status_word

SIZE = 8 * MIB
Starter = Callable[..., Daemon]


@pytest.fixture
def node(tmp_path: Path, originals: Originals) -> Node:
    return Node(tmp_path / "node", daemon_words(ORIGINAL, originals))


@pytest.fixture
def start(node: Node) -> Iterator[Starter]:
    started: list[Daemon] = []

    def starter(*options: str, **variables: str) -> Daemon:
        daemon = Daemon(node.words(*options, variables=variables))
        started.append(daemon)
        return daemon

    yield starter
    for daemon in started:
        daemon.__exit__()


def create_request(name: str, **changes: object) -> Create:
    fields: dict[str, object] = {
        "pool_set": name,
        "pool_size": SIZE,
        "lanes": 4,
        "providers": ("sockets",),
        "message_size": pmdk.MESSAGE_SIZE,
        "attributes": Attributes().pack(),
    }
    return Create(**{**fields, **changes})


def open_request(name: str, **changes: object) -> Open:
    fields: dict[str, object] = {
        "pool_set": name,
        "pool_size": SIZE,
        "lanes": 4,
        "providers": ("sockets",),
        "message_size": pmdk.MESSAGE_SIZE,
    }
    return Open(**{**fields, **changes})


def begun(daemon: Daemon, request: Create | Open) -> tuple[PmdkInitiatorSession, Event]:
    """Start a session and make its first request."""
    session = PmdkInitiatorSession(where="the original")
    assert isinstance(daemon.converse(session), Greeted)
    if isinstance(request, Create):
        session.create(request)
    else:
        session.open(request)
    return session, daemon.converse(session)


class TestGoodAnswers:
    @pytest.mark.parametrize(("asked", "granted"), [(1, 1), (4, 4), (16, 16), (64, 16)])
    def test_create(self, node: Node, start: Starter, asked: int, granted: int) -> None:
        name = node.make_set(SIZE)
        _, event = begun(start(), create_request(name, lanes=asked))
        assert isinstance(event, Opened)
        ready = event.ready
        assert len(ready.lanes) == granted
        assert 1 <= ready.port <= 65535
        assert ready.steps == ("send-after-write",)
        assert ready.lanes[0].address % 4096 == 0
        assert ready.attributes == Attributes().pack()
        assert header_block(node.part(name).read_bytes()[:4096]) == Attributes().pack()

    @pytest.mark.parametrize(
        ("options", "force", "step"),
        [
            ("--persist-general", "1", "send-after-write"),
            ("--persist-apm", "0", "send-after-write"),
            ("--persist-apm", "1", "read-after-write"),
        ],
    )
    def test_method(self, node: Node, start: Starter, options: str, force: str, step: str) -> None:
        daemon = start(options, PMEM_IS_PMEM_FORCE=force)
        _, event = begun(daemon, create_request(node.make_set(SIZE)))
        assert isinstance(event, Opened)
        assert event.ready.steps == (step,)

    @pytest.mark.parametrize("name", ["x.set", "with blank.set", "ünïcode.set", "n" * 200 + ".set"])
    def test_names(self, node: Node, start: Starter, name: str) -> None:
        node.make_set(SIZE, name=name)
        _, event = begun(start(), create_request(name))
        assert isinstance(event, Opened)

    def test_every_attribute_survives(self, node: Node, start: Starter) -> None:
        name = node.make_set(SIZE)
        attributes = Attributes(b"\xff\x00abc\x01\x02\x03", 1 << 31, 0xDEADBEEF, 0x10, 0x80000001)
        with start() as daemon:
            _, event = begun(daemon, create_request(name, attributes=attributes.pack()))
            assert isinstance(event, Opened)
        # That daemon was killed before any lane came; the pool stays.
        _, event = begun(start(), open_request(name, lanes=2))
        assert isinstance(event, Opened)
        assert event.ready.attributes == attributes.pack()
        assert len(event.ready.lanes) == 2

    def test_pool_without_headers(self, node: Node, start: Starter) -> None:
        name = node.make_set(SIZE, options=["NOHDRS"])
        with start() as daemon:
            _, event = begun(daemon, create_request(name, attributes=None))
            assert isinstance(event, Opened)
        _, event = begun(start(), open_request(name))
        assert isinstance(event, Opened)
        assert event.ready.attributes is None

    def test_attributes_may_be_set_before_the_lanes_are_there(
        self, node: Node, start: Starter
    ) -> None:
        name = node.make_set(SIZE)
        daemon = start()
        session, _ = begun(daemon, create_request(name))
        for major in (7, 8):
            changed = Attributes(b"CHANGED!", major)
            session.set_attributes(changed.pack())
            assert isinstance(daemon.converse(session), AttributesSet)
            assert header_block(node.part(name).read_bytes()[:4096]) == changed.pack()

    @pytest.mark.slow
    def test_close_without_lanes_fails_after_the_originals_time_out(
        self, node: Node, start: Starter
    ) -> None:
        name = node.make_set(SIZE)
        daemon = start()
        session, _ = begun(daemon, create_request(name))
        session.close()
        event = daemon.converse(session, timeout=90)
        assert isinstance(event, Refused)
        assert isinstance(event.error, RemoteError)
        assert event.error.errno == errno.EREMOTEIO
        assert not node.part(name).exists()


class TestStatuses:
    """Every status that this daemon can be brought to answer with."""

    def refused(self, daemon: Daemon, request: Create | Open) -> RpmemError:
        session, event = begun(daemon, request)
        assert isinstance(event, Refused), event
        assert session.ended
        assert daemon.rest() == b""
        assert daemon.exit_status() == 0
        return event.error

    def check(self, error: RpmemError, kind: type[RpmemError], number: int) -> None:
        assert type(error) is kind
        assert error.errno == number

    def test_bad_name(self, node: Node, start: Starter) -> None:
        absolute = f"{node.sets}/{node.make_set(SIZE)}"
        for request in (create_request(absolute), open_request(absolute)):
            self.check(self.refused(start(), request), PoolSetNameRefused, errno.EINVAL)

    def test_bad_size(self, node: Node, start: Starter) -> None:
        request = create_request(node.make_set(SIZE), pool_size=2 * SIZE)
        self.check(self.refused(start(), request), PoolSetTooSmall, errno.EFBIG)

    def test_bad_provider(self, node: Node, start: Starter) -> None:
        if os.path.isdir("/sys/class/infiniband") and os.listdir("/sys/class/infiniband"):
            pytest.skip("this machine has an RDMA device, and verbs works")
        request = create_request(node.make_set(SIZE), providers=("verbs",))
        self.check(self.refused(start(), request), ProviderUnavailable, errno.EINVAL)

    def test_busy(self, node: Node, start: Starter) -> None:
        name = node.make_set(SIZE)
        _, event = begun(start(), create_request(name))
        assert isinstance(event, Opened)
        self.check(self.refused(start(), open_request(name)), PoolSetBusy, errno.EBUSY)
        self.check(self.refused(start(), create_request(name)), PoolSetBusy, errno.EBUSY)

    def test_exists(self, node: Node, start: Starter) -> None:
        name = node.make_set(SIZE)
        with start() as daemon:
            begun(daemon, create_request(name))
        self.check(self.refused(start(), create_request(name)), PoolSetExists, errno.EEXIST)

    def test_not_there(self, node: Node, start: Starter) -> None:
        absent = self.refused(start(), create_request("none.set"))
        self.check(absent, PoolSetNotFound, errno.ENOENT)
        partless = self.refused(start(), open_request(node.make_set(SIZE)))
        self.check(partless, PoolSetNotFound, errno.ENOENT)

    def test_no_access(self, node: Node, start: Starter) -> None:
        name = node.make_set(SIZE)
        if os.getuid() == 0:
            caps = "-dac_override,-dac_read_search"
            node.daemon = ["setpriv", f"--bounding-set={caps}", *node.daemon]
        node.parts.chmod(stat.S_IRUSR | stat.S_IXUSR)
        try:
            self.check(self.refused(start(), create_request(name)), PoolSetDenied, errno.EACCES)
        finally:
            node.parts.chmod(stat.S_IRWXU)

    @pytest.mark.parametrize(
        ("options", "attributes"),
        [([], None), (["NOHDRS"], Attributes()), (["SINGLEHDR"], Attributes())],
        ids=["no-attributes", "nohdrs", "singlehdr"],
    )
    def test_configuration(
        self, node: Node, start: Starter, options: list[str], attributes: Attributes | None
    ) -> None:
        name = node.make_set(SIZE, options=options)
        request = create_request(name, attributes=attributes and attributes.pack())
        self.check(self.refused(start(), request), PoolSetMalformed, errno.EINVAL)

    def test_fatal(self, node: Node, start: Starter) -> None:
        name = node.make_set(SIZE)
        with start() as daemon:
            begun(daemon, create_request(name))
        with node.part(name).open("r+b") as part:
            part.write(b"DAMAGED!")
        self.check(self.refused(start(), open_request(name)), RemoteError, errno.EREMOTEIO)

    def test_second_create_is_fatal(self, node: Node, start: Starter) -> None:
        daemon = start()
        begun(daemon, create_request(node.make_set(SIZE)))
        second = pmdk.encode_request(create_request(node.make_set(SIZE)))
        daemon.send(second)
        answer = daemon.receive_exactly(pmdk.ANSWER_SIZES[Kind.CREATE_ANSWER])
        header = pmdk.decode_answer_header(answer, Kind.CREATE_ANSWER)
        assert header.status is Status.FATAL
        assert not any(answer[pmdk.ANSWER_HEADER_SIZE :])

    def test_close_before_open_is_fatal(self, start: Starter) -> None:
        request = pmdk.encode_request(Close())
        assert raw_status(start(), request, Kind.CLOSE) == Status.FATAL

    def test_attributes_for_a_pool_without_headers(self, node: Node, start: Starter) -> None:
        daemon = start()
        name = node.make_set(SIZE, options=["NOHDRS"])
        session, _ = begun(daemon, create_request(name, attributes=None))
        session.set_attributes(Attributes().pack())
        event = daemon.converse(session)
        assert isinstance(event, Refused)
        assert event.error.errno == errno.EINVAL

    def test_bad_configuration_in_the_status_word(self, node: Node, start: Starter) -> None:
        configuration = node.folder / "bad.conf"
        configuration.write_text("no-such-key = 1\n")
        daemon = start("--config", str(configuration))
        event = daemon.converse(PmdkInitiatorSession(where="the original"))
        assert isinstance(event, SessionFailed)
        assert event.error.errno == errno.EINVAL
        assert daemon.exit_status() == 1


def raw_status(daemon: Daemon, request: bytes, kind: Kind) -> Status:
    """Send bytes and return the status in the answer, which must be all zero otherwise."""
    daemon.start()
    daemon.send(request)
    due = pmdk.answer_to(kind)
    answer = daemon.receive_exactly(pmdk.ANSWER_SIZES[due])
    assert len(answer) == pmdk.ANSWER_SIZES[due]
    assert not any(answer[pmdk.ANSWER_HEADER_SIZE :])
    return pmdk.decode_answer_header(answer, due).status


def patched(request: bytes, offset: int, form: str, value: int) -> bytes:
    size = struct.calcsize(form)
    return request[:offset] + struct.pack(form, value) + request[offset + size :]


class TestBreaches:
    """What the original does not answer: a second status word and the exit status 255."""

    @pytest.mark.parametrize(
        ("offset", "form", "value"),
        [
            (0, ">I", 0),
            (0, ">I", 2),
            (0, ">I", 9),
            (4, ">Q", 11),
            (4, ">Q", 0),
            (12, ">H", 1),
            (14, ">H", 2),
            (28, ">I", 0),
            (28, ">I", 3),
            (144, ">I", 3),
            (144, ">I", 1 << 31),
        ],
    )
    def test_create(self, node: Node, start: Starter, offset: int, form: str, value: int) -> None:
        request = pmdk.encode_request(create_request(node.make_set(SIZE)))
        daemon = start()
        daemon.start()
        daemon.send(patched(request, offset, form, value))
        daemon.hang_up()
        said = daemon.rest()
        assert len(said) == 4
        assert daemon.exit_status() == 255
        assert list(node.parts.iterdir()) == []

    def test_our_session_takes_the_second_word_for_a_refusal(
        self, node: Node, start: Starter
    ) -> None:
        name = node.make_set(SIZE)
        daemon = start()
        session = PmdkInitiatorSession(where="the original")
        daemon.converse(session)
        session.create(create_request(name))
        daemon.send(patched(session.data_to_send(), 14, ">H", 2))
        events = []
        while not session.ended:
            data = daemon.receive()
            events += session.receive(data) if data else session.receive_eof()
        assert isinstance(events[-1], SessionFailed)
        assert isinstance(events[-1].error, ReplicaLost)

    def test_two_nuls_in_the_name(self, node: Node, start: Starter) -> None:
        request = pmdk.encode_request(create_request("a.set"))
        daemon = start()
        daemon.start()
        daemon.send(request.replace(b"a.set\0", b"a\0set\0"))
        assert len(daemon.rest()) == 4
        assert daemon.exit_status() == 255

    @pytest.mark.parametrize("first", ["set_attributes", "no lanes", "zero attributes"])
    def test_the_original_crashes(self, node: Node, start: Starter, first: str) -> None:
        """Not to be imitated: what ours must do better than this."""
        # libinfinipath would turn the signal into an exit status.
        daemon = start(IPATH_NO_BACKTRACE="1")
        name = node.make_set(SIZE)
        if first == "set_attributes":
            daemon.start()
            daemon.send(pmdk.encode_request(SetAttributes(attributes=Attributes().pack())))
        elif first == "no lanes":
            daemon.start()
            request = pmdk.encode_request(create_request(name))
            daemon.send(patched(request, 24, ">I", 0))
        else:
            begun(daemon, create_request(name))
            daemon.send(pmdk.encode_request(SetAttributes(attributes=bytes(104))))
        assert daemon.exit_status() < 0

    def test_a_native_greeting_ends_the_original(self, start: Starter) -> None:
        """What a native initiator finds, and falls back upon."""
        daemon = start()
        daemon.start()
        daemon.send(b"RPMf" + bytes(60))
        assert len(daemon.rest()) == 4
        assert daemon.exit_status() == 255


def test_statuses_no_daemon_answers_with_are_decoded_too() -> None:
    header = struct.pack(">IIQ", Status.FATAL_CONN, Kind.CREATE_ANSWER, 44)
    session = PmdkInitiatorSession(where="the original")
    session.receive(status_word(0))
    session.create(create_request("a.set"))
    session.data_to_send()
    (event,) = session.receive(header + bytes(28))
    assert isinstance(event, Refused)
    assert isinstance(event.error, ConnectFailed)
    assert event.error.errno == errno.ECONNABORTED
