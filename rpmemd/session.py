"""One control session at the target, from the status word to the last answer.

The session reads requests from the initiator, one at a time, and carries them out: it opens the
pool, starts serving lanes, and closes both in an order in which no lane can reach the memory of a
pool that is no longer locked.
"""

from __future__ import annotations

import os
import select
import threading
import time
from typing import Any

from rpmem._version import __version__
from rpmem.base.pool_format import HEADER_SIZE, POOL_FLOOR
from rpmem.base.providers import SOCKETPAIR
from rpmem.base.remedies import shortage
from rpmem.base.steps import READ_AFTER_WRITE, SEND_AFTER_WRITE
from rpmem.control.events import (
    CloseRequested,
    CreateRequested,
    DigestsRequested,
    Event,
    Greeted,
    InitiatorGone,
    LeaveRequested,
    LookRequested,
    OpenRequested,
    SessionFailed,
    SetAttributesRequested,
    SetEpochRequested,
)
from rpmem.control.handshake import Protocol, detect, pack_status
from rpmem.control.messages import (
    EPOCHS,
    NONCE_SIZE,
    STAGING,
    Create,
    Digest,
    Hello,
    LaneGrant,
    List,
    Look,
    Open,
    Peek,
    Ready,
    features,
)
from rpmem.control.pmdk_target import PmdkTargetSession
from rpmem.control.proof import new_token, pack_proof
from rpmem.control.target import TargetSession
from rpmem.control.target_machine import TargetMachine, TargetState
from rpmem.errors import (
    AttributesRefused,
    EpochRefused,
    ReplicaLost,
    RpmemError,
    VersionMismatch,
)
from rpmem.fabric import providers as _fabric
from rpmem.files.attributes import PoolAttributes, keeps_record
from rpmemd import boot, records
from rpmemd.admission import Admission, OrderAdmission, PeerAdmission, TokenAdmission
from rpmemd.config import Config
from rpmemd.database import Database
from rpmemd.hashing import digests_of
from rpmemd.lane_server import NATIVE, PMDK, LaneServer
from rpmemd.log import Log
from rpmemd.looking import Looker
from rpmemd.permission import allowed_providers
from rpmemd.stream import Stream

_CHUNK = 1 << 16
GRACE_S = 10.0  # of silence, until an initiator that has lost lanes counts as gone


class Session:
    """Serves one initiator.

    Parameters
    ----------
    config : Config
    log : Log
    stream : Stream
        The connection to the initiator.
    database : Database
        The pool sets it may use.
    address : str
        Where to accept lanes: the address at which the initiator reached us.
    peer : str
        The address the initiator came from.
    """

    _ends_at: float | None = None

    def __init__(
        self,
        config: Config,
        log: Log,
        stream: Stream,
        database: Database,
        *,
        address: str,
        peer: str,
    ) -> None:
        self._config = config
        self._log = log
        self._stream = stream
        self._database = database
        self._address = address
        self._peer = peer
        self._dialect = NATIVE
        self._machine: TargetMachine | None = None
        self._pool: Any = None
        self._records: records.Records | None = None
        self._looker: Looker | None = None
        self._features: frozenset[str] = frozenset()
        self._created = False
        self._lanes: LaneServer | None = None
        self._reports: list[RpmemError | None] = []
        self._report_lock = threading.Lock()
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def run(self) -> int:
        """Serve until the session ends; return the process's exit status."""
        self._stream.write(pack_status(0))
        try:
            self._greet()
            while self._machine is not None and not self._machine.ended:
                self._step()
            ended = self._machine is not None and self._machine.state is TargetState.CLOSED
            return 0 if ended else 1
        finally:
            self._stop(remove=False)
            # No lane reports any more.
            os.close(self._wake_read)
            os.close(self._wake_write)

    # --- the initiator's bytes ------------------------------------------------------------

    def _greet(self) -> None:
        """Find out which protocol the initiator speaks."""
        first = b""
        while (protocol := detect(first)) is None:
            data = self._stream.read()
            if not data:
                return
            first += data
        if protocol is Protocol.PMDK:
            self._machine = PmdkTargetSession()
            self._dialect = PMDK
        else:
            hello = Hello.of_this_process(f"rpmemd {__version__}", features())
            self._machine = TargetSession(hello)
        self._log.sink = self._machine.log
        self._handle(self._machine.receive(first))

    def _step(self) -> None:
        """Wait for the initiator or the lanes, and handle what they send."""
        assert self._machine is not None
        poll = select.poll()
        poll.register(self._stream.source, select.POLLIN)
        poll.register(self._wake_read, select.POLLIN)
        left = self._ends_at and max(self._ends_at - time.monotonic(), 0) * 1000
        ready = {descriptor for descriptor, _ in poll.poll(left)}
        if not ready:
            self._log.warn("the lanes are lost, and nothing is heard of the initiator")
            self._handle(self._machine.receive_eof())
        if self._wake_read in ready:
            os.read(self._wake_read, _CHUNK)
            self._take_reports()
        if self._stream.source in ready:
            data = self._stream.read()
            self._ends_at = self._ends_at and time.monotonic() + GRACE_S
            self._handle(self._machine.receive(data) if data else self._machine.receive_eof())

    def _handle(self, events: list[Event]) -> None:
        assert self._machine is not None
        for event in events:
            try:
                self._carry_out(event)
            except RpmemError as error:
                self._log.err(str(error))
                self._machine.error(error)
            except (OSError, RuntimeError, MemoryError) as error:
                # A thread that cannot be started raises RuntimeError; any other of these is a bug.
                if not isinstance(error, OSError) and shortage(error) is None:
                    raise
                self._log.err(f"{type(event).__name__}: {error}")
                self._machine.error(error)
            self._answer()
        self._answer()

    def _answer(self) -> None:
        assert self._machine is not None
        self._stream.write(self._machine.data_to_send())

    def _carry_out(self, event: Event) -> None:
        assert self._machine is not None
        match event:
            case Greeted():
                self._features = event.features
                self._log.info(f"the initiator speaks {event.protocol.value} {event.version}")
            case CreateRequested(request=request):
                self._serve(request)
            case OpenRequested(request=request):
                self._serve(request)
            case LookRequested(request=request):
                self._show(request)
            case SetAttributesRequested(attributes=attributes):
                self._set_attributes(PoolAttributes.unpack(attributes))
                self._machine.done()
            case SetEpochRequested(record=record, discard=discard):
                self._kept_records().set(record, discard=discard)
                self._machine.done()
            case LeaveRequested():
                self._kept_records().leave()
                self._machine.done()
            case DigestsRequested(request=request):
                self._answer_digests(request)
            case CloseRequested(remove=remove):
                self._stop(remove=remove, orderly=True)
                self._machine.done()
            case InitiatorGone():
                self._log.warn("the initiator left without closing the session")
            case SessionFailed(error=error):
                self._log.err(str(error))

    # --- pool and lanes -------------------------------------------------------------------

    def _serve(self, request: Create | Open) -> None:
        """Create or open the pool, register it, listen, answer."""
        self._check_protocol()
        self._log_request(request)
        providers = allowed_providers(request, self._config)
        if isinstance(request, Create):
            attributes = PoolAttributes.unpack(request.attributes) if request.attributes else None
            self._pool = self._database.create(
                request.pool_set, request.pool_size, attributes, parts=request.parts
            )
            self._created = True
        else:
            self._pool = self._database.open(request.pool_set, request.pool_size)
        try:
            self._find_record()
            self._listen(request, providers)
        except BaseException:
            self._stop(remove=self._created)
            raise

    def _show(self, request: Look | Peek | List) -> None:
        """Let the initiator look, which neither locks nor changes anything."""
        assert isinstance(self._machine, TargetSession)
        self._check_protocol()
        if self._looker is None:
            self._looker = Looker(self._database)
        self._machine.show(self._looker.answer(request))

    def _answer_digests(self, request: Digest) -> None:
        """Take digests of what lanes may read of the pool."""
        assert isinstance(self._machine, TargetSession)
        assert self._lanes is not None
        _, floor = self._floors
        found = digests_of(self._pool, request, floor=floor, size=self._lanes.size)
        self._machine.digests(found.digests, deep=found.deep)

    def _find_record(self) -> None:
        """Read the record of a pool that rpmem laid out; a new pool begins without one."""
        attributes = self._pool.attributes
        if not keeps_record(attributes):
            return
        if self._created:
            records.clear(self._pool.region)
        # In PMDK's dialect the initiator keeps it, through the lanes.
        if self._dialect is NATIVE:
            self._records = records.Records.read(self._pool.region, attributes.poolset_uuid)
            if self._records.damage is not None:
                self._log.warn(self._records.damage)

    def _kept_records(self) -> records.Records:
        if self._records is None:
            raise EpochRefused(
                "the pool has no place for a record: rpmem did not lay it out",
                hint="Only pools of rpmem.Pool have epochs",
            )
        return self._records

    def _set_attributes(self, attributes: PoolAttributes) -> None:
        """Replace the attributes; what the record is keyed with stays as long as there is one."""
        before = self._pool.attributes
        if keeps_record(before) and records.has_any(self._pool.region):
            kept = keeps_record(attributes)
            if not kept or attributes.poolset_uuid != before.poolset_uuid:
                raise AttributesRefused(
                    "signature, major version and poolset_uuid of a pool with epochs do not change",
                    hint="The records of its copies belong to them",
                )
        self._pool.set_attributes(attributes)
        if self._records is not None:
            self._records = None
            self._find_record()

    @property
    def _floors(self) -> tuple[int, int]:
        """Where messages may begin to write, and to read, in the pool."""
        attributes = self._pool.attributes
        if attributes is None or self._dialect is not NATIVE:
            return 0, 0
        return (POOL_FLOOR, POOL_FLOOR) if keeps_record(attributes) else (HEADER_SIZE, 0)

    def _check_protocol(self) -> None:
        """Refuse a protocol that the administrator has excluded."""
        if self._config.protocol not in ("both", self._dialect.name):
            raise VersionMismatch(
                f"this rpmemd is configured to speak only the {self._config.protocol} protocol",
                hint="the option is protocol, in rpmemd.conf or on the command line",
            )

    def _admission(self, tokens: tuple[bytes, ...]) -> Admission:
        if self._dialect is PMDK:
            return PeerAdmission(self._peer, len(tokens), self._log)
        assert self._lanes is not None
        if not self._lanes.port:
            return OrderAdmission(len(tokens))
        return TokenAdmission(tokens, self._log)

    def _listen(self, request: Create | Open, providers: tuple[str, ...]) -> None:
        assert self._machine is not None
        pool = self._pool
        size = request.pool_size or pool.size
        floor, read_floor = self._floors
        lanes = LaneServer(
            pool.region,
            size=size,
            floor=floor,
            read_floor=read_floor,
            providers=providers,
            address=self._address,
            lanes=request.lanes,
            message_size=request.message_size,
            dialect=self._dialect,
            may_stage=STAGING in self._features,
            threads=request.threads or self._config.nthreads,
            spin_s=None if self._config.spin_us is None else self._config.spin_us * 1e-6,
            report=self._report,
            carrier=self._carrier(providers),
        )
        self._lanes = lanes
        tokens = tuple(new_token() for _ in range(lanes.granted))
        encrypts = request.encrypt and _fabric.encrypts(lanes.fabric.provider)
        nonce = os.urandom(NONCE_SIZE) if encrypts else None
        if nonce is not None:
            lanes.fabric.secure(nonce, [pack_proof(*pair) for pair in enumerate(tokens)])
        answer = Ready(
            provider=lanes.fabric.provider,
            address=self._address,
            port=lanes.port,
            lanes=tuple(
                LaneGrant(token=token, key=key, address=address)
                for token, (key, address) in zip(
                    tokens, map(lanes.reach, range(lanes.granted)), strict=True
                )
            ),
            pool_size=size,
            staging=lanes.staging,
            attributes=None if pool.attributes is None else pool.attributes.pack(),
            medium=pool.region.medium,
            steps=self._steps(lanes),
            message_size=lanes.message_size,
            window=self._dialect.window,
            zeroed=pool.zeroed,
            nonce=nonce,
            **self._standing(),
        )
        lanes.start(self._admission(tokens))
        self._machine.ready(answer)
        if self._dialect is PMDK:
            self._log_policy(answer)
        if lanes.unreachable is not None:
            self._log.warn(
                f"{request.pool_set}: {lanes.unreachable.what}; data of this session travels "
                "inside messages and is copied, which is just as durable but slower"
            )
        self._log.notice(
            f"serving {request.pool_set}: {size} bytes on a {pool.region.medium} medium, "
            f"{lanes.granted} lanes over {lanes.fabric.provider}"
            + (", encrypted" if nonce is not None else "")
        )

    def _carrier(self, providers: tuple[str, ...]) -> int | None:
        """Return the descriptor over which lanes can be passed to the initiator, if there is one.

        Behind sshd stdin may be a Unix socket, too, but it leads no further than there.
        """
        if SOCKETPAIR not in providers or "SSH_CONNECTION" in os.environ:
            return None
        pairs = _fabric.load(SOCKETPAIR)
        return self._stream.source if pairs.can_carry(self._stream.source) else None

    def _standing(self) -> dict[str, Any]:
        """Return what Ready says of the record, and of what it is worth."""
        if self._records is None or EPOCHS not in self._features:
            return {}
        return {
            "record": self._records.image,
            "damage": self._records.damage,
            "boot": boot.boot_id(),
        }

    def _steps(self, lanes: LaneServer) -> tuple[str, ...]:
        if self._dialect is NATIVE:
            return lanes.steps(apm=self._config.persist_apm)
        # As in the original: APM if it is allowed and the pool is persistent memory.
        apm = self._config.persist_apm and self._pool.region.medium == "pmem"
        return (READ_AFTER_WRITE.name if apm else SEND_AFTER_WRITE.name,)

    def _log_request(self, request: Create | Open) -> None:
        """Log the request of a PMDK initiator, in the wording of its own rpmemd."""
        if self._dialect is not PMDK:
            return
        from rpmemd.pmdk_log import attribute_lines, request_lines

        self._log.lines("notice", request_lines(request))
        if isinstance(request, Create) and request.attributes:
            self._log.lines("info", attribute_lines(request.attributes))

    def _log_policy(self, answer: Ready) -> None:
        """Log how data becomes durable, in the wording of PMDK's rpmemd."""
        from rpmemd.pmdk_log import policy_lines

        self._log.lines("notice", policy_lines(answer))

    def _stop(self, *, remove: bool, orderly: bool = False) -> None:
        """Stop the lanes, then close the pool: nothing may write to it once it is unlocked."""
        lanes, self._lanes = self._lanes, None
        if lanes is not None:
            never_came = not lanes.complete
            lanes.close()
            # As in the original: a pool that was never connected to counts as not created, unless
            # its initiator closes it properly.
            remove = remove or (self._created and never_came and not orderly)
            if lanes.refused:
                self._log.notice(f"{lanes.refused} connections were refused")
        looker, self._looker = self._looker, None
        if looker is not None:
            looker.close()
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.close(remove=remove and self._created)

    # --- what the lanes report, from their threads ----------------------------------------

    def _report(self, error: RpmemError | None) -> None:
        with self._report_lock:
            self._reports.append(error)
        os.write(self._wake_write, b"x")

    def _take_reports(self) -> None:
        assert self._machine is not None
        with self._report_lock:
            reports, self._reports = self._reports, []
        for error in reports:
            if error is None:
                self._log.debug("a lane was disconnected")
            else:
                self._log.err(str(error))
                self._machine.failure(error)
        if any(error is None for error in reports):
            self._machine.failure(ReplicaLost("a lane was disconnected"))
            self._ends_at = self._ends_at or time.monotonic() + GRACE_S
        self._answer()
