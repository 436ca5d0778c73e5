"""A native initiator and a native target, joined in memory."""

from __future__ import annotations

import errno

import pytest

from rpmem.control.events import (
    AttributesSet,
    Closed,
    CloseRequested,
    CreateRequested,
    Greeted,
    InitiatorGone,
    LeaveRequested,
    LegacyTarget,
    LogReceived,
    Opened,
    OpenRequested,
    RecordSet,
    Refused,
    SessionFailed,
    SetAttributesRequested,
    SetEpochRequested,
    TargetFailed,
)
from rpmem.control.handshake import Protocol, pack_status
from rpmem.control.initiator import InitiatorSession
from rpmem.control.initiator_machine import InitiatorState
from rpmem.control.messages import (
    DIGEST,
    EPOCHS,
    LEFT,
    LOOK,
    Close,
    Create,
    Digest,
    Done,
    Hello,
    LaneGrant,
    Left,
    List,
    Listed,
    Log,
    Message,
    Open,
    Ready,
    SetAttributes,
    SetEpoch,
)
from rpmem.control.pmdk_initiator import PmdkInitiatorSession
from rpmem.control.target import TargetSession
from rpmem.control.target_machine import TargetMachine, TargetState
from rpmem.errors import (
    AttributesRefused,
    ClosedError,
    EpochRefused,
    FlushFailed,
    LaunchFailed,
    MalformedMessage,
    NoiseBeforeProtocol,
    PoolSetBusy,
    RemoteError,
    ReplicaLost,
    UnexpectedMessage,
    UsageError,
    VersionMismatch,
)

HERE = Hello(software="rpmem 0.1.0", host="node1", pid=11, features=("colour", "taste"))
THERE = Hello(software="rpmemd 0.1.0", host="node2", pid=22, features=("taste", "sound"))
ATTRIBUTES = bytes(range(104))
CREATE = Create(
    pool_set="a/p32.set",
    pool_size=32 << 20,
    lanes=4,
    providers=("tcp", "sockets"),
    message_size=65536,
    attributes=ATTRIBUTES,
)
OPEN = Open(pool_set="a/p32.set", lanes=4, providers=("tcp",), message_size=65536)
LANES = tuple(LaneGrant(token=bytes([i]) * 32, key=i, address=1 << 40) for i in range(3))
READY = Ready(
    provider="tcp",
    address="192.0.2.7",
    port=4711,
    lanes=LANES,
    pool_size=32 << 20,
    attributes=ATTRIBUTES,
    medium="page",
    steps=("send-after-write", "read-after-write"),
    message_size=4096,
    window=16,
)


class Pair:
    """Both sides and the two pipes between them."""

    def __init__(self, here: Hello = HERE, there: Hello = THERE, status: int = 0) -> None:
        self.initiator = InitiatorSession(here, where="node2")
        self.target = TargetSession(there)
        self.started = self.initiator.receive(pack_status(status))

    def to_target(self):
        return self.target.receive(self.initiator.data_to_send())

    def to_initiator(self):
        return self.initiator.receive(self.target.data_to_send())

    def greet(self) -> Pair:
        self.to_target()
        self.to_initiator()
        return self

    def open(self, ready: Ready = READY) -> Pair:
        self.greet()
        self.initiator.create(CREATE)
        self.to_target()
        self.target.ready(ready)
        self.to_initiator()
        return self


def frame(message: Message, serial: int = 1) -> bytes:
    return message.encode(serial, limit=1 << 20)


def failure_of(events):
    assert isinstance(events[-1], SessionFailed), events
    return events[-1].error


# --- the whole of it --------------------------------------------------------------------------


def test_a_session_from_the_status_word_to_the_last_answer():
    pair = Pair()
    assert pair.started == []
    both = frozenset({"taste"})
    assert pair.to_target() == [Greeted(Protocol.NATIVE, "2", both, HERE)]
    assert pair.to_initiator() == [Greeted(Protocol.NATIVE, "2", both, THERE)]
    pair.initiator.create(CREATE)
    assert pair.to_target() == [CreateRequested(CREATE)]
    pair.target.ready(READY)
    assert pair.to_initiator() == [Opened(READY)]
    pair.initiator.set_attributes(b"\x55" * 104)
    assert pair.to_target() == [SetAttributesRequested(b"\x55" * 104)]
    pair.target.done()
    assert pair.to_initiator() == [AttributesSet()]
    pair.initiator.close(remove=True)
    assert pair.to_target() == [CloseRequested(True)]
    pair.target.done()
    assert pair.to_initiator() == [Closed()]
    assert pair.initiator.state is InitiatorState.CLOSED
    assert pair.target.state is TargetState.CLOSED
    assert pair.initiator.receive_eof() == []
    assert pair.target.receive_eof() == []


def test_one_byte_at_a_time_gives_the_same_events():
    pair = Pair(status=0)
    slow = InitiatorSession(HERE, where="node2")
    events = []
    pair.to_target()
    for byte in pack_status(0) + pair.target.data_to_send():
        events += slow.receive(bytes([byte]))
    assert events == [Greeted(Protocol.NATIVE, "2", frozenset({"taste"}), THERE)]
    slow.create(CREATE)
    slow.data_to_send()
    events = [e for byte in frame(READY, 2) for e in slow.receive(bytes([byte]))]
    assert events == [Opened(READY)]
    assert slow.buffered == 0
    target = TargetSession(THERE)
    events = []
    for byte in frame(HERE, 1) + frame(OPEN, 2):
        events += target.receive(bytes([byte]))
    assert events == [
        Greeted(Protocol.NATIVE, "2", frozenset({"taste"}), HERE),
        OpenRequested(OPEN),
    ]
    assert target.buffered == 0


def test_a_refused_create_ends_the_session_with_the_same_kind_of_error():
    pair = Pair().greet()
    pair.initiator.create(CREATE)
    pair.to_target()
    pair.target.error(PoolSetBusy("held by process 99", where="/pools/p32.set", hint="Wait"))
    (event,) = pair.to_initiator()
    assert isinstance(event, Refused)
    error = event.error
    assert type(error) is PoolSetBusy
    assert error.errno == errno.EBUSY
    assert str(error) == "node2: /pools/p32.set: held by process 99. Wait."
    assert pair.target.state is TargetState.CLOSED
    assert pair.initiator.state is InitiatorState.CLOSED
    with pytest.raises(ClosedError):
        pair.initiator.open(OPEN)


def test_a_failure_outside_our_own_errors_arrives_as_remote_error():
    for error, text, number in (
        (OSError(errno.EIO, "Input/output error", "/dev/x"), "/dev/x: Input", errno.EIO),
        (ZeroDivisionError("division by zero"), "ZeroDivisionError: division", errno.EREMOTEIO),
        (OSError("no number"), "no number", errno.EREMOTEIO),
    ):
        pair = Pair().greet()
        pair.initiator.open(OPEN)
        pair.to_target()
        pair.target.error(error)
        (event,) = pair.to_initiator()
        assert type(event.error) is RemoteError
        assert text in str(event.error)
        assert event.error.errno == number


def test_refused_attributes_leave_the_session_open():
    pair = Pair().open()
    pair.initiator.set_attributes(b"\x01" * 104)
    pair.to_target()
    pair.target.error(AttributesRefused("not with SINGLEHDR"))
    (event,) = pair.to_initiator()
    assert type(event.error) is AttributesRefused
    pair.initiator.close()
    assert pair.to_target() == [CloseRequested(False)]


def test_zero_attributes_never_reach_the_daemon():
    pair = Pair().open()
    pair.initiator.set_attributes(bytes(104))
    assert pair.to_target() == []
    (event,) = pair.to_initiator()
    assert type(event.error) is AttributesRefused
    headless = Ready(**{**vars(READY), "attributes": None})
    pair = Pair().open(headless)
    pair.initiator.set_attributes(bytes(104))
    assert pair.to_target() == []
    assert pair.to_initiator() == [AttributesSet()]


def test_log_and_failure_come_at_any_time():
    pair = Pair().greet()
    pair.target.log("warning", "the medium is \x1b[31mvolatile")
    pair.initiator.create(CREATE)
    pair.to_target()
    pair.target.log("info", "created")
    pair.target.ready(READY)
    pair.target.failure(FlushFailed("msync failed", errno=errno.ENOSPC))
    first, second, opened, failed = pair.to_initiator()
    assert first == LogReceived("warning", "the medium is \\x1b[31mvolatile")
    assert second == LogReceived("info", "created")
    assert opened == Opened(READY)
    assert isinstance(failed, TargetFailed)
    assert type(failed.error) is FlushFailed
    assert failed.error.errno == errno.ENOSPC
    pair.initiator.close()
    assert pair.to_target() == [CloseRequested(False)]


def test_the_target_takes_hello_and_the_first_request_in_one_go():
    target = TargetSession(THERE)
    events = target.receive(frame(HERE, 1) + frame(OPEN, 2))
    assert [type(event) for event in events] == [Greeted, OpenRequested]


# --- the record of the copy -------------------------------------------------------------------

BOTH = (EPOCHS, LEFT, LOOK, DIGEST)
ASKED = Digest(offset=4096, length=4096, unit=4096, key=bytes(32))
CHANGES = {
    "set_epoch": (lambda session: session.set_epoch(b"record"), SetEpoch(record=b"record"), EPOCHS),
    "leave": (lambda session: session.leave(), Left(), LEFT),
    "digest": (lambda session: session.digest(ASKED), ASKED, DIGEST),
}
each_change = pytest.mark.parametrize("change", CHANGES)


def with_records(*, here=BOTH, there=BOTH) -> Pair:
    return Pair(HERE.replaced(features=here), THERE.replaced(features=there))


def test_a_record_is_set_and_a_copy_leaves():
    pair = with_records().open()
    for discard in (False, True):
        pair.initiator.set_epoch(b"record", discard=discard)
        assert pair.initiator.state is InitiatorState.SETTING
        assert pair.to_target() == [SetEpochRequested(b"record", discard)]
        assert pair.target.state is TargetState.SETTING
        pair.target.done()
        assert pair.to_initiator() == [RecordSet()]
        assert pair.initiator.state is InitiatorState.OPEN
        assert pair.target.state is TargetState.OPEN
    pair.initiator.leave()
    assert pair.to_target() == [LeaveRequested()]
    pair.target.done()
    assert pair.to_initiator() == [RecordSet()]
    pair.initiator.close()
    assert pair.to_target() == [CloseRequested(False)]


@each_change
def test_a_refused_record_leaves_the_session_open(change):
    ask, _, _ = CHANGES[change]
    pair = with_records().open()
    for _ in range(2):
        ask(pair.initiator)
        pair.to_target()
        pair.target.error(EpochRefused("it is the record of another copy", hint="Look"))
        (event,) = pair.to_initiator()
        assert isinstance(event, Refused)
        assert type(event.error) is EpochRefused
        assert str(event.error) == "node2: it is the record of another copy. Look."
        assert pair.initiator.state is InitiatorState.OPEN
        assert pair.target.state is TargetState.OPEN


def starting() -> Pair:
    pair = with_records()
    pair.initiator = InitiatorSession(HERE.replaced(features=BOTH), where="node2")
    return pair


def opening() -> Pair:
    pair = with_records().greet()
    pair.initiator.create(CREATE)
    pair.to_target()
    return pair


def setting() -> Pair:
    pair = with_records().open()
    pair.initiator.set_attributes(b"\x01" * 104)
    pair.to_target()
    return pair


def hashing() -> Pair:
    pair = with_records().open()
    pair.initiator.digest(ASKED)
    pair.to_target()
    return pair


def examining() -> Pair:
    pair = with_records().greet()
    pair.initiator.look(List())
    pair.to_target()
    return pair


def looking() -> Pair:
    pair = examining()
    pair.target.show(Listed(sets=(), last=True))
    pair.to_initiator()
    return pair


def closing() -> Pair:
    pair = with_records().open()
    pair.initiator.close()
    pair.to_target()
    return pair


def closed() -> Pair:
    pair = closing()
    pair.target.done()
    pair.to_initiator()
    return pair


def lost() -> Pair:
    pair = with_records().open()
    pair.initiator.receive_eof()
    pair.target.receive_eof()
    return pair


def failed() -> Pair:
    pair = with_records().open()
    pair.initiator.receive(frame(Done(), 99))
    pair.target.receive(frame(HERE, 99))
    return pair


def legacy() -> Pair:
    pair = with_records()
    pair.initiator.receive(pack_status(71))
    pair.initiator.receive_eof()
    return pair


OF_INITIATOR = {
    InitiatorState.STARTING: (starting, UsageError),
    InitiatorState.GREETING: (with_records, UsageError),
    InitiatorState.IDLE: (lambda: with_records().greet(), UsageError),
    InitiatorState.OPENING: (opening, UsageError),
    InitiatorState.SETTING: (setting, UsageError),
    InitiatorState.HASHING: (hashing, UsageError),
    InitiatorState.EXAMINING: (examining, UsageError),
    InitiatorState.LOOKING: (looking, UsageError),
    InitiatorState.CLOSING: (closing, UsageError),
    InitiatorState.CLOSED: (closed, ClosedError),
    InitiatorState.FAILED: (failed, UnexpectedMessage),
    InitiatorState.LOST: (lost, ReplicaLost),
    InitiatorState.LEGACY: (legacy, ClosedError),
}
OF_TARGET = {
    TargetState.GREETING: with_records,
    TargetState.IDLE: lambda: with_records().greet(),
    TargetState.OPENING: opening,
    TargetState.SETTING: setting,
    TargetState.HASHING: hashing,
    TargetState.EXAMINING: examining,
    TargetState.LOOKING: looking,
    TargetState.CLOSING: closing,
    TargetState.CLOSED: closed,
    TargetState.FAILED: failed,
    TargetState.LOST: lost,
}


def test_every_state_but_the_open_one_is_tried():
    assert OF_INITIATOR.keys() == set(InitiatorState) - {InitiatorState.OPEN}
    assert OF_TARGET.keys() == set(TargetState) - {TargetState.OPEN}


@each_change
@pytest.mark.parametrize("state", OF_INITIATOR, ids=lambda state: state.name)
def test_an_initiator_asks_for_it_only_while_open(state, change):
    ask, _, _ = CHANGES[change]
    make, error = OF_INITIATOR[state]
    initiator = make().initiator
    initiator.data_to_send()
    assert initiator.state is state
    with pytest.raises(error) as caught:
        ask(initiator)
    assert type(caught.value) is error
    assert initiator.state is state
    assert initiator.data_to_send() == b""


@each_change
@pytest.mark.parametrize("state", OF_TARGET, ids=lambda state: state.name)
def test_a_target_takes_it_only_while_open(state, change):
    _, message, _ = CHANGES[change]
    target = OF_TARGET[state]().target
    assert target.state is state
    events = target.receive(frame(message, 3))
    if state in TargetMachine.final:
        assert events == []
    else:
        assert type(failure_of(events)) is UnexpectedMessage
        assert target.state is TargetState.FAILED


@each_change
@pytest.mark.parametrize("lacking", ["here", "there"])
def test_without_the_feature_there_is_no_such_request(change, lacking):
    ask, message, feature = CHANGES[change]
    pair = with_records(**{lacking: tuple(each for each in BOTH if each != feature)}).open()
    pair.to_target()
    with pytest.raises(UsageError, match=f"does not have the feature {feature}"):
        ask(pair.initiator)
    assert pair.initiator.data_to_send() == b""
    error = failure_of(pair.target.receive(frame(message, 3)))
    assert type(error) is UnexpectedMessage
    assert f"needs the feature {feature}" in str(error)


@each_change
def test_pmdk_s_protocol_has_no_such_request(change):
    ask, _, _ = CHANGES[change]
    session = PmdkInitiatorSession(where="node2")
    session.receive(pack_status(0))
    session.state = InitiatorState.OPEN
    with pytest.raises(UsageError):
        ask(session)
    assert session.data_to_send() == b""


@each_change
def test_the_end_of_the_target_before_its_answer_is_told(change):
    ask, message, _ = CHANGES[change]
    pair = with_records().open()
    ask(pair.initiator)
    error = failure_of(pair.initiator.receive_eof())
    assert type(error) is ReplicaLost
    assert f"before it answered {type(message).__name__}" in str(error)


# --- versions ---------------------------------------------------------------------------------


def versions(low: int, high: int, host: str) -> Hello:
    return Hello(software=f"rpmem {high}.0", host=host, version=high, min_version=low)


def test_the_newest_common_version_is_chosen():
    pair = Pair(versions(1, 5, "node1"), versions(2, 3, "node2"))
    (event,) = pair.to_target()
    assert event.version == "3"
    (event,) = pair.to_initiator()
    assert event.version == "3"


@pytest.mark.parametrize(
    ("here", "there", "old"),
    [
        (versions(1, 1, "node1"), versions(2, 3, "node2"), "initiator"),
        (versions(4, 6, "node1"), versions(2, 3, "node2"), "target"),
    ],
)
def test_no_common_version_says_which_side_to_upgrade(here, there, old):
    pair = Pair(here, there)
    at_target = failure_of(pair.to_target())
    at_initiator = failure_of(pair.to_initiator())
    for error in (at_target, at_initiator):
        assert type(error) is VersionMismatch
        assert f"Upgrade rpmem on the {old}" in str(error)
        assert "node1" in str(error)
        assert "node2" in str(error)
    with pytest.raises(VersionMismatch):
        pair.initiator.create(CREATE)


@pytest.mark.parametrize("old", ["initiator", "target"])
def test_version_0_1_and_this_one_tell_in_one_sentence_which_side_to_upgrade(old):
    """Version 0.1.0 speaks control protocol 1, and nothing else."""
    before = versions(1, 1, "node0").replaced(software="rpmem 0.1.0")
    pair = Pair(before, THERE) if old == "initiator" else Pair(HERE, before)
    new, host = ("target", "node2") if old == "initiator" else ("initiator", "node1")
    at_target = failure_of(pair.to_target())
    at_initiator = failure_of(pair.to_initiator())
    for error in (at_target, at_initiator):
        assert type(error) is VersionMismatch
        assert f"the {old} (rpmem 0.1.0 on node0) speaks control protocol 1, the {new}" in str(
            error
        )
        assert f"on {host}) 2. Upgrade rpmem on the {old}." in str(error)


def test_the_initiator_checks_the_version_too():
    session = InitiatorSession(HERE, where="node2")
    events = session.receive(pack_status(0) + frame(versions(7, 9, "node2")))
    error = failure_of(events)
    assert type(error) is VersionMismatch
    assert "Upgrade rpmem on the initiator" in str(error)


# --- how a session begins, when it does not ---------------------------------------------------


def test_a_status_word_with_an_errno():
    session = InitiatorSession(HERE, where="node2")
    error = failure_of(session.receive(pack_status(errno.EINVAL)))
    assert type(error) is LaunchFailed
    assert error.errno == errno.EINVAL
    assert str(error).startswith("node2: rpmemd refused to start: Invalid argument.")


def test_a_login_script_that_prints():
    session = InitiatorSession(HERE, where="node2")
    error = failure_of(session.receive(b"hello, \x1b[1mworld\n"))
    assert type(error) is NoiseBeforeProtocol
    assert session.stray == b"hello, \x1b[1mworld\n"
    assert "\x1b" not in str(error)


def test_noise_after_the_status_word():
    session = InitiatorSession(HERE, where="node2")
    assert session.receive(pack_status(0) + b"Last") == []
    error = failure_of(session.receive(b" login: now"))
    assert type(error) is NoiseBeforeProtocol
    assert session.stray == b"Last login: now"


def test_nothing_at_all():
    session = InitiatorSession(HERE, where="node2")
    session.receive(b"hi")
    error = failure_of(session.receive_eof())
    assert type(error) is LaunchFailed
    assert session.stray == b"hi"
    assert session.state is InitiatorState.LOST


@pytest.mark.parametrize("second", [0, 2, 71])
def test_pmdk_rpmemd_ends_with_a_second_status_word(second):
    session = InitiatorSession(HERE, where="node2")
    assert session.receive(pack_status(0)) == []
    assert session.receive(pack_status(second)) == []
    assert session.receive_eof() == [LegacyTarget()]
    assert session.state is InitiatorState.LEGACY


@pytest.mark.parametrize("end", [b"", b"\0", b"RPM", b"RPMf\0"])
def test_another_end_before_the_hello_is_not_taken_for_pmdk(end):
    session = InitiatorSession(HERE, where="node2")
    session.receive(pack_status(0) + end)
    assert type(failure_of(session.receive_eof())) is ReplicaLost


# --- the other side breaks the rules ----------------------------------------------------------


@pytest.mark.parametrize(
    "first",
    [CREATE, OPEN, SetAttributes(attributes=ATTRIBUTES), Close(), SetEpoch(record=b"r"), Left()],
    ids=lambda m: m.KIND.name,
)
def test_the_target_wants_hello_first(first):
    target = TargetSession(THERE)
    error = failure_of(target.receive(frame(first, 9)))
    assert type(error) is UnexpectedMessage
    assert target.state is TargetState.FAILED
    answer = InitiatorSession(HERE, where="node2")
    told = failure_of(answer.receive(pack_status(0) + target.data_to_send()))
    assert type(told) is UnexpectedMessage
    assert target.receive(frame(HERE)) == []


@pytest.mark.parametrize(
    "early",
    [
        frame(HERE, 2),
        frame(SetAttributes(attributes=ATTRIBUTES), 2),
        frame(Close(), 2),
        frame(OPEN, 2) + frame(OPEN, 3),
        frame(OPEN, 2) + frame(Close(), 3),
        frame(Done(), 2),
        frame(READY, 2),
        frame(Log(message="not yours"), 2),
    ],
)
def test_the_target_refuses_what_does_not_fit(early):
    target = TargetSession(THERE)
    error = failure_of(target.receive(frame(HERE, 1) + early))
    assert type(error) is UnexpectedMessage
    target.data_to_send()
    # The daemon may be in the middle of the request: its answer is dropped without fuss.
    target.ready(READY)
    target.done()
    target.error(PoolSetBusy("late"))
    target.log("info", "late")
    target.failure(FlushFailed("late"))
    assert target.data_to_send() == b""


def test_a_second_create_on_an_open_pool():
    pair = Pair().open()
    error = failure_of(pair.target.receive(frame(CREATE, 3)))
    assert type(error) is UnexpectedMessage
    told = failure_of(pair.to_initiator())
    assert type(told) is UnexpectedMessage
    assert pair.initiator.state is InitiatorState.FAILED


@pytest.mark.parametrize(
    "answer",
    [frame(Done(), 2), frame(READY, 3), frame(THERE, 2), frame(CREATE, 2), frame(READY, 1)],
)
def test_the_initiator_refuses_answers_that_do_not_fit(answer):
    pair = Pair().greet()
    pair.initiator.create(CREATE)
    assert isinstance(failure_of(pair.initiator.receive(answer)), UnexpectedMessage)
    with pytest.raises(UnexpectedMessage):
        pair.initiator.close()


def test_an_answer_nobody_asked_for():
    for answer in (Done(), READY, HERE):
        pair = Pair().open()
        assert type(failure_of(pair.initiator.receive(frame(answer, 2)))) is UnexpectedMessage


@pytest.mark.parametrize(
    "lie",
    [
        {"lanes": LANES + LANES},
        {"provider": "verbs"},
        {"pool_size": (32 << 20) - 1},
        {"message_size": 65537},
        {"lanes": (LaneGrant(token=b"", key=0, address=0),)},
    ],
    ids=lambda lie: next(iter(lie)),
)
def test_a_ready_that_is_no_answer(lie):
    ready = Ready(**{**vars(READY), **lie})
    pair = Pair().greet()
    pair.initiator.create(CREATE)
    assert type(failure_of(pair.initiator.receive(frame(ready, 2)))) is MalformedMessage
    other = Pair().greet()
    other.initiator.create(CREATE)
    other.to_target()
    with pytest.raises(UsageError):
        other.target.ready(ready)


def test_advisory_messages_that_nobody_knows_are_ignored():
    pair = Pair().open()
    unknown = frame(Done(), 0).replace(b"\x40\x02", b"\x87\x65", 1)
    assert pair.initiator.receive(unknown) == []
    assert pair.initiator.state is InitiatorState.OPEN
    unknown = frame(Done(), 0).replace(b"\x40\x02", b"\x47\x65", 1)
    assert type(failure_of(pair.initiator.receive(unknown))) is UnexpectedMessage


# --- the connection breaks --------------------------------------------------------------------


def test_the_initiator_goes_away():
    pair = Pair().open()
    assert pair.target.receive_eof() == [InitiatorGone()]
    assert pair.target.state is TargetState.LOST
    assert pair.target.receive_eof() == []


def test_the_target_goes_away():
    pair = Pair().open()
    pair.initiator.close()
    error = failure_of(pair.initiator.receive_eof())
    assert type(error) is ReplicaLost
    assert "before it answered Close" in str(error)
    with pytest.raises(ReplicaLost):
        pair.initiator.close()


# --- our own side is wrong --------------------------------------------------------------------


def test_commands_in_the_wrong_order():
    session = InitiatorSession(HERE)
    with pytest.raises(UsageError):
        session.create(CREATE)
    pair = Pair().greet()
    with pytest.raises(UsageError):
        pair.initiator.set_attributes(ATTRIBUTES)
    with pytest.raises(UsageError):
        pair.target.ready(READY)
    with pytest.raises(UsageError):
        pair.target.done()
    with pytest.raises(UsageError):
        pair.target.error(PoolSetBusy("no request"))
    pair.initiator.create(CREATE)
    with pytest.raises(UsageError):
        pair.initiator.open(OPEN)


@pytest.mark.parametrize("kind", [MalformedMessage, UnexpectedMessage, VersionMismatch])
@pytest.mark.parametrize("setting", [False, True])
def test_a_target_that_finds_us_breaking_the_protocol_has_ended_the_session(kind, setting):
    pair = Pair().open()
    if setting:
        pair.initiator.set_attributes(b"\x01" * 104)
    else:
        pair.initiator.close()
    pair.to_target()
    pair.target.error(kind("a message has a wrong size"))
    error = failure_of(pair.to_initiator())
    assert type(error) is kind
    assert pair.initiator.state is InitiatorState.FAILED
    with pytest.raises(kind):
        pair.initiator.close()
