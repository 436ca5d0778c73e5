"""The control channel: a transport, the initiator's session on it, and the thread that listens.

The thread notices immediately when the target gives up the session or dies, and tells its owner.
"""

from __future__ import annotations

import copy
import logging
import os
import threading
import time
from collections.abc import Callable

from rpmem.base import interrupts
from rpmem.base.handles import Handle
from rpmem.base.interrupts import wait_for
from rpmem.base.printable import printable
from rpmem.base.remedies import remedy_for, shortage
from rpmem.control.events import (
    AttributesSet,
    Closed,
    DigestsTaken,
    Event,
    Greeted,
    LegacyTarget,
    LogReceived,
    Opened,
    RecordSet,
    Refused,
    SessionFailed,
    Shown,
    TargetFailed,
)
from rpmem.control.initiator import InitiatorSession
from rpmem.control.initiator_machine import InitiatorMachine, InitiatorState
from rpmem.control.messages import (
    Content,
    Create,
    Digest,
    Hello,
    List,
    Listed,
    Look,
    Open,
    Peek,
    Ready,
    Seen,
)
from rpmem.errors import (
    ClosedError,
    DeadlineExceeded,
    LaunchError,
    LaunchFailed,
    NoiseBeforeProtocol,
    ReplicaLost,
    RpmemError,
)
from rpmem.launch.base import Transport
from rpmem.launch.diagnose import diagnose, suspects

log = logging.getLogger("rpmem")
# Without it, an application without a logging setup would see our errors twice.
log.addHandler(logging.NullHandler())

_CHUNK = 1 << 16
_BUSY = (
    InitiatorState.OPENING,
    InitiatorState.SETTING,
    InitiatorState.HASHING,
    InitiatorState.EXAMINING,
)
_SERVED = (InitiatorState.OPEN, InitiatorState.LOOKING)
#: Seconds for a target that has failed to remove what it created.
_LAST_WORD_S = 2.0
# Limits on lines of a target's log: at once and in the long run.
_MOST_LINES = 500
_LINES_PER_SECOND = 50.0
_LEVELS = {"err": 40, "warn": 30, "notice": 20, "info": 20, "debug": 10}


class LegacySpoken(RpmemError):
    """The target is PMDK's rpmemd: it has to be started again and spoken to in its protocol."""

    code = "legacy-target"


class Channel(Handle):
    """Sends requests to one rpmemd and receives its answers.

    Parameters
    ----------
    transport : Transport
        To a process just started; closed together with the channel.
    machine : InitiatorMachine
        The protocol.
    where : str
        The target, as the user named it.
    timeout_s : float
        Seconds that any answer may take.
    on_failure : callable
        ``on_failure(error)`` is called once, from the channel's thread, when the target can no
        longer serve or is gone.
    """

    def __init__(
        self,
        transport: Transport,
        machine: InitiatorMachine,
        *,
        where: str,
        timeout_s: float,
        on_failure: Callable[[RpmemError], None],
    ) -> None:
        self.transport = transport
        self.peer: Hello | None = None
        self._machine = machine
        self._where = where
        self._timeout_s = timeout_s
        self._on_failure = on_failure
        self._state = threading.Condition()
        self._answer: Event | None = None
        self._failure: RpmemError | None = None
        self._closing = False
        self._ended = False
        self._lines_left: float = _MOST_LINES
        self._lines_dropped = 0
        self._logged_at = time.monotonic()
        try:
            self._send()
            self._thread = threading.Thread(target=self._listen, name=f"rpmem {where}", daemon=True)
            self._thread.start()
        except BaseException as error:
            transport.close(0.0)
            number = shortage(error)
            if number is None:
                raise
            raise LaunchFailed(
                f"no thread can be started to listen to rpmemd: {os.strerror(number)}",
                where=where,
                hint=remedy_for(number),
                errno=number,
            ) from error

    # --- requests -------------------------------------------------------------------------

    def greet(self) -> None:
        """Wait until the other side has identified itself.

        Raises
        ------
        LegacySpoken
            The target runs PMDK's rpmemd.
        LaunchError, VersionMismatch, DeadlineExceeded
            The other side is missing, incompatible or silent.
        """
        self._await(Greeted)

    def create(self, request: Create) -> Ready:
        """Ask for a pool to be created; return what is needed to connect the lanes."""
        self._ask(lambda: self._machine.create(request))
        event = self._await(Opened)
        assert isinstance(event, Opened)
        return event.ready

    def open(self, request: Open) -> Ready:
        """Ask for a pool to be opened; return what is needed to connect the lanes."""
        self._ask(lambda: self._machine.open(request))
        event = self._await(Opened)
        assert isinstance(event, Opened)
        return event.ready

    def set_attributes(self, attributes: bytes) -> None:
        """Ask for the pool's attributes to be replaced."""
        self._ask(lambda: self._machine.set_attributes(attributes))
        self._await(AttributesSet)

    def set_epoch(self, record: bytes, *, discard: bool) -> None:
        """Ask for the record of the target's copy to be replaced; durable when this returns."""
        self._ask(lambda: self._machine.set_epoch(record, discard=discard))
        self._await(RecordSet)

    def leave(self) -> None:
        """Ask for the target's copy to be marked as left; durable when this returns."""
        self._ask(self._machine.leave)
        self._await(RecordSet)

    def digests(self, request: Digest, meanwhile: Callable[[], None]) -> DigestsTaken:
        """Ask for digests of the target's pool; return them after doing something else."""
        self._ask(lambda: self._machine.digest(request))
        meanwhile()
        event = self._await(DigestsTaken)
        assert isinstance(event, DigestsTaken)
        return event

    def look(self, request: Look | Peek | List) -> Seen | Content | Listed:
        """Ask for something to look at; only of a target that speaks our own protocol."""
        machine = self._machine
        assert isinstance(machine, InitiatorSession)
        self._ask(lambda: machine.look(request))
        event = self._await(Shown)
        assert isinstance(event, Shown)
        return event.answer

    @property
    def features(self) -> frozenset[str]:
        """What both sides can do besides the protocol."""
        return self._machine.features

    def close(self, *, remove: bool = False) -> None:
        """End the session properly, wait for the process, release everything.

        A target that has given up its lanes still accepts a request to remove what it created.
        """
        try:
            with self._state:
                self._closing = True
                known = self._failure
                # After an interrupt, the answer to the last request may still be due.
                answered = wait_for(
                    self._state, lambda: self._machine.state not in _BUSY, self._timeout_s
                )
                if remove and not answered:
                    raise self._unanswered()
                if self._machine.state in _SERVED:
                    self._ask(lambda: self._machine.close(remove=remove))
            if self._machine.state is InitiatorState.CLOSING:
                self._await(Closed, despite=known)
                if interrupts.interrupted():
                    # It has already released the pool: there is no need to wait for its end.
                    self.transport.kill()
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Release everything, whatever state the session is in."""
        with self._state:
            self._closing = True
        self.transport.close(self._timeout_s)
        if not self.listens_here:
            self._thread.join()

    @property
    def listens_here(self) -> bool:
        """Whether this is the listening thread, which cannot wait for its own end."""
        return threading.current_thread() is self._thread

    @property
    def failure(self) -> RpmemError | None:
        """Why the session is broken, if it is."""
        with self._state:
            return self._failure

    def await_failure(self, timeout_s: float) -> RpmemError | None:
        """Wait briefly for the cause of a fault that a lane noticed first."""
        with self._state:
            wait_for(self._state, lambda: self._failure is not None, timeout_s)
            return self._failure

    def _ask(self, request: Callable[[], None]) -> None:
        with self._state:
            # After an interrupt, the answer to the last request may still be due.
            if not wait_for(
                self._state,
                lambda: self._machine.state not in _BUSY or self._ended,
                self._timeout_s,
            ):
                raise self._unanswered()
            request()
            # An earlier interrupted request may have left its answer.
            self._answer = None
            self._send()

    def _send(self) -> None:
        data = self._machine.data_to_send()
        if data:
            try:
                self.transport.send(data, self._timeout_s)
            except ReplicaLost:
                # The listening thread will find out why.
                return

    def _await(self, kind: type[Event], *, despite: RpmemError | None = None) -> Event:
        timeout_s = self._timeout_s if despite is None else min(self._timeout_s, _LAST_WORD_S)
        with self._state:
            wait_for(
                self._state,
                lambda: self._answer is not None or self._failure is not despite or self._ended,
                timeout_s,
            )
            answer, self._answer = self._answer, None
            if answer is None and self._failure is not None:
                raise copy.copy(self._failure)
        if isinstance(answer, kind):
            return answer
        if isinstance(answer, Refused):
            raise answer.error
        if answer is not None:
            raise ReplicaLost(
                f"rpmemd answered with {type(answer).__name__} out of turn", where=self._where
            )
        if self._machine.state is InitiatorState.STARTING:
            raise diagnose(self.transport, self._machine.stray)
        raise self._unanswered()

    def _unanswered(self) -> DeadlineExceeded:
        return DeadlineExceeded(
            f"rpmemd did not answer within {self._timeout_s:g} s ({self._machine.state.value})",
            where=self._where,
            hint="RPMEM_TIMEOUT or timeout= allows more time",
        )

    # --- the listening thread -------------------------------------------------------------

    def _listen(self) -> None:
        try:
            self._hear()
        finally:
            with self._state:
                self._ended = True
                self._state.notify_all()

    def _hear(self) -> None:
        while True:
            try:
                data = self.transport.receive(_CHUNK, None)
            except ClosedError:
                return
            except RpmemError as error:
                self._fail(error)
                return
            with self._state:
                events = self._machine.receive(data) if data else self._machine.receive_eof()
            for event in events:
                self._take(event)
            if not data:
                return

    def _take(self, event: Event) -> None:
        match event:
            case LogReceived(level=level, message=message):
                self._log(_LEVELS.get(level, logging.INFO), message)
            case TargetFailed(error=error):
                self._fail(error)
            case LegacyTarget():
                self._fail(LegacySpoken("the target is PMDK's rpmemd", where=self._where))
            case SessionFailed(error=error):
                self._fail(self._explain(error))
            case _:
                if isinstance(event, Greeted):
                    self.peer = event.peer
                with self._state:
                    self._answer = event
                    self._state.notify_all()

    def _log(self, level: int, message: str) -> None:
        """Pass on a line of the target's log, unless there are too many."""
        now = time.monotonic()
        gained = (now - self._logged_at) * _LINES_PER_SECOND
        self._lines_left = min(self._lines_left + gained, _MOST_LINES)
        self._logged_at = now
        if self._lines_left < 1:
            self._lines_dropped += 1
            return
        self._lines_left -= 1
        if self._lines_dropped:
            log.warning("%s: %d lines of its log were left out", self._where, self._lines_dropped)
            self._lines_dropped = 0
        log.log(level, "%s: rpmemd: %s", self._where, message)

    def _explain(self, error: RpmemError) -> RpmemError:
        """Add the likely cause to the error for the end of a session."""
        if self._closing:
            return error
        if isinstance(error, LaunchError | NoiseBeforeProtocol):
            return diagnose(self.transport, self._machine.stray)
        if isinstance(error, ReplicaLost):
            status = self.transport.exit_status(1.0)
            words = self.transport.stderr_text().strip().splitlines()
            said = f"; it said: {printable(words[-1], 300)}" if words else ""
            # After an answer, ssh evidently carries both directions.
            hint = suspects(self.transport) if self.peer is None else ""
            return ReplicaLost(
                f"{error.what} ({_ending(status)}){said}", where=self._where, hint=hint or None
            )
        return error

    def _fail(self, error: RpmemError) -> None:
        with self._state:
            if self._failure is not None:
                return
            self._failure = error
            tell = not self._closing
            self._state.notify_all()
        if tell:
            self._on_failure(error)


def _ending(status: int | None) -> str:
    if status is None:
        return "rpmemd or its ssh closed the connection"
    if status < 0:
        return f"ended by signal {-status}"
    return f"exit status {status}"
