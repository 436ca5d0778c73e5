"""The lanes of one session: listen, admit, serve, stop.

An accept thread admits connections until all lanes have come, then the listener closes for good;
from then on service threads serve them. The admission decides who may connect.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, ParamSpec, cast

from rpmem.base.providers import SOCKETPAIR
from rpmem.base.remedies import remedy_for, shortage
from rpmem.base.steps import COMMIT, FLUSH, READ_AFTER_WRITE, SEND_AFTER_WRITE, STEPS
from rpmem.base.values import Record
from rpmem.control.pmdk import REQUEST_SIZE
from rpmem.errors import (
    ConnectFailed,
    DeadlineExceeded,
    MissingExtension,
    ProviderUnavailable,
    RegistrationFailed,
    RpmemError,
)
from rpmem.fabric import providers as _fabric
from rpmem.memory.region import Region
from rpmemd import service
from rpmemd.admission import Admission

if TYPE_CHECKING:
    from rpmem.fabric.contract import (
        Domain,
        Fabric,
        FabricModule,
        Lane,
        Listener,
        Memory,
        Queue,
        Request,
    )
    from rpmem.wire import lane as wire

_P = ParamSpec("_P")

ACCEPT_TIMEOUT_S = 30.0
_SLICE_S = 0.02
_REPLY_SIZE = 64
_REPLY_SLOTS = 8
# Per lane, if the pool cannot be registered: longer READs take several round trips.
_STAGING = 256 << 10
_PACED_MESSAGE, _MESSAGE = 1 << 20, 65 << 12
_DEFAULT_SPIN_S = 200e-6


class Dialect(Record):
    """The differences between the in-band protocols.

    Attributes
    ----------
    name : str
        Its name for the service.
    window : int
        Most unanswered messages of a lane.
    one_key : bool
        All lanes reach the pool through the same key and address.
    """

    name: str
    window: int
    one_key: bool

    def buffer_size(self, message_size: int) -> int:
        """Return the size of a receive buffer for messages with so many bytes of data."""
        if self.name == "native":
            return message_size
        # The request comes on top, and rpmemd's buffers are aligned to 64 bytes.
        return -(-(REQUEST_SIZE + message_size) // 64) * 64


NATIVE = Dialect("native", 4, one_key=False)
PMDK = Dialect("pmdk", 1, one_key=True)


class LaneServer:
    """Serves a pool over a fabric.

    Parameters
    ----------
    region : Region
        The pool, from its first byte.
    size : int
        How many bytes of it are served.
    floor : int
        Bytes at its start that messages may not write to.
    read_floor : int
        Bytes at its start that messages may not read.
    providers : sequence of str
        Providers, in order of preference; the first that works is used.
    address : str
        Where to listen.
    lanes : int
        How many lanes are requested; fewer are granted if the provider has a limit.
    message_size : int
        Largest in-band message requested.
    dialect : Dialect
        The in-band protocol.
    may_stage : bool
        The initiator can handle a pool that it does not reach directly.
    threads : int
        Service threads; 0: chosen automatically.
    spin_s : float or None
        Seconds to poll before sleeping; None: chosen automatically.
    report : callable
        ``report(error)`` is called from other threads when the lanes are no longer served, with the
        reason (None: the initiator hung up).
    carrier : int, optional
        The descriptor over which lanes can be passed to the initiator.

    Attributes
    ----------
    size : int
        How many bytes of the pool are served.
    message_size : int
        Largest in-band message accepted.
    unreachable : RegistrationFailed or None
        The reason if one-sided operations do not reach the pool.
    service_class : type
        Of the class: the type that serves the lanes.

    Raises
    ------
    ProviderUnavailable
        None of the providers works here.
    RegistrationFailed
        The pool cannot be registered.
    """

    service_class: ClassVar[type[service.Service]] = service.Service

    def __init__(
        self,
        region: Region,
        *,
        size: int,
        floor: int,
        read_floor: int = 0,
        providers: tuple[str, ...],
        address: str,
        lanes: int,
        message_size: int,
        dialect: Dialect,
        may_stage: bool = False,
        threads: int,
        spin_s: float | None,
        report: Callable[[RpmemError | None], None],
        carrier: int | None = None,
    ) -> None:
        self._region = region
        self.size = size
        self._floor = floor
        self._read_floor = read_floor
        self._dialect = dialect
        self._may_stage = may_stage
        self._spin_s = _DEFAULT_SPIN_S if spin_s is None else spin_s
        self._report = report
        self._stopping = False
        self._threads: list[threading.Thread] = []
        self._lanes: list[Lane] = []
        self._service: service.Service | None = None
        self._listener: Listener | None = None
        self.refused = 0
        self._accepted = 0
        self._module, self.fabric = _first_that_works(providers, address, carrier)
        self.granted = min(lanes, self.fabric.lane_limit)
        # If messages do not wait in the connection, each lane has a buffer for every message that
        # may be under way, and all of them are pinned.
        self.message_size = min(message_size, _PACED_MESSAGE if self.fabric.paces else _MESSAGE)
        self._domains: list[Domain] = []
        self._memories: list[Memory] = []
        self._queues: list[Queue] = []
        self._staging: Region | None = None
        self.unreachable: RegistrationFailed | None = None
        try:
            self._register(threads or _threads_for(self.granted))
            self._listener = self._module.Listener(self.fabric, lanes=self.granted)
        except BaseException:
            self.close()
            raise

    def _register(self, threads: int) -> None:
        """Make one queue per thread; register the pool once if that pins it, else per thread."""
        shared = self.fabric.pins or self._dialect.one_key
        for _ in range(min(threads, self.granted)):
            if not self._domains or not shared:
                domain = self._module.Domain(self.fabric)
                self._domains.append(domain)
                self._memories.append(self._pool_or_staging(domain))
            self._queues.append(self._module.Queue(self._domains[-1]))

    def _pool_or_staging(self, domain: Domain) -> Memory:
        """Register the pool or, if that is refused, memory through which it can be read.

        Kernels refuse to pin memory of files whose pages or blocks they have to track.
        """
        if self.unreachable is None:
            fabric = self.fabric
            places = self._region.medium == "pmem" and (fabric.commits or fabric.flushes)
            try:
                return self._memory(domain, self._region, self.size, persistent=places)
            except RegistrationFailed as error:
                if not self._may_stage:
                    raise
                self.unreachable = error
        if self._staging is None:
            self._staging = Region.anonymous(_STAGING * self.granted)
        return self._memory(domain, self._staging, self._staging.size)

    def _memory(
        self, domain: Domain, region: Region, size: int, *, persistent: bool = False
    ) -> Memory:
        return self._module.Memory(
            domain,
            region.address,
            size,
            remote=True,
            persistent=persistent,
            # Random if we may choose, so that the key of an older session is useless.
            key=int.from_bytes(os.urandom(8), "little") >> 2,
            keep=region,
        )

    @property
    def staging(self) -> int:
        """Size of the buffer that a lane reaches instead of the pool; 0: it reaches the pool."""
        return 0 if self.unreachable is None else _STAGING

    @property
    def listener(self) -> Listener:
        """The listener for the lanes."""
        assert self._listener is not None
        return self._listener

    @property
    def port(self) -> int:
        """The port that lanes connect to."""
        return self.listener.port

    def reach(self, lane: int) -> tuple[int, int]:
        """Return key and address of the pool for lane number `lane`, or those of its staging."""
        memory = self._memories[lane % len(self._queues) % len(self._memories)]
        return memory.key, memory.address + lane * self.staging

    @property
    def complete(self) -> bool:
        """Whether every lane was accepted: before that, no initiator sees all of them connected."""
        return self._accepted == self.granted

    def steps(self, *, apm: bool) -> tuple[str, ...]:
        """Return the durability steps that are possible here, best first.

        Parameters
        ----------
        apm : bool
            The administrator states that writes of the fabric bypass this machine's caches.
        """
        reached = self.unreachable is None
        medium = self._region.medium
        possible = {
            SEND_AFTER_WRITE: True,
            COMMIT: reached and medium == "pmem" and self.fabric.commits,
            # Device and kernel have accepted this memory for flushing.
            FLUSH: reached
            and self.fabric.flushes
            and all(memory.flushes for memory in self._memories),
            READ_AFTER_WRITE: reached and apm and medium != "page" and self.fabric.bypasses,
        }
        return tuple(step.name for step in STEPS.values() if possible[step])

    # --- connecting lanes ---------------------------------------------------------------------
    # ---------------------------------------------------------------------------

    def start(self, admission: Admission) -> None:
        """Admit lanes, then serve them; returns immediately."""
        thread = threading.Thread(
            target=self._guarded, args=(self._accept, admission), name="accept", daemon=True
        )
        thread.start()
        # It may have made the service's threads already; `close` awaits it before them.
        self._threads.insert(0, thread)

    def _guarded(
        self, work: Callable[_P, None], *arguments: _P.args, **keywords: _P.kwargs
    ) -> None:
        try:
            work(*arguments, **keywords)
        except RpmemError as error:
            self._report(error)
        except BaseException as error:
            number = shortage(error)
            what = repr(error) if number is None else os.strerror(number)
            self._report(
                ConnectFailed(
                    f"the in-band service failed: {what}", errno=number, hint=remedy_for(number)
                )
            )
            if number is None:
                raise

    def _accept(self, admission: Admission) -> None:
        lanes: dict[int, Lane] = {}
        try:
            self._await_lanes(admission, lanes)
        finally:
            # Requests from now on are too late.
            self.listener.close()
            self._lanes = [lanes[number] for number in sorted(lanes)]
        if not self._stopping:
            self._serve()

    def _await_lanes(self, admission: Admission, lanes: dict[int, Lane]) -> None:
        """Admit lanes into `lanes` until all are connected."""
        deadline = time.monotonic() + ACCEPT_TIMEOUT_S
        connecting: dict[int, Lane] = {}
        connected = 0
        while connected < self.granted and not self._stopping:
            if time.monotonic() > deadline:
                raise DeadlineExceeded(
                    f"{connected} of {self.granted} lanes were connected within "
                    f"{ACCEPT_TIMEOUT_S:g} s"
                )
            event = self.listener.next(_SLICE_S, connecting)
            if event is None:
                continue
            if isinstance(event, self._module.Request):
                lane = self._admit(admission, event)
                if lane is not None:
                    lanes[lane.index] = lane
                    connecting[lane.key] = lane
            else:
                connected += 1

    def _admit(self, admission: Admission, request: Request) -> Lane | None:
        number = admission.admit(request.data, request.peer)
        if number is None:
            self.refused += 1
            request.reject()
            return None
        queue = self._queues[number % len(self._queues)]
        lane = self._module.FabricLane(
            self._domains[number % len(self._queues) % len(self._domains)],
            queue,
            number,
            (max(self._dialect.window, _REPLY_SLOTS), _REPLY_SIZE),
            (
                1 if self.fabric.paces else self._dialect.window,
                self._dialect.buffer_size(self.message_size),
            ),
            None,
            request,
        )
        lane.post_receives()
        self._accepted += 1
        lane.accept()
        return lane

    def _serve(self) -> None:
        service = self.service_class(
            self._region,
            self.size,
            self._floor,
            cast("list[wire.Lane]", self._lanes),  # which the lanes of every fabric are
            self._queues,
            spin_s=self._spin_s,
            on_drop=self._on_drop,
            dialect=self._dialect.name,
            base=self._memories[0].address,
            staging=self._staging,
            read_floor=self._read_floor,
        )
        self._service = service
        for number in range(len(self._queues)):
            thread = threading.Thread(
                target=self._guarded, args=(service.run, number), name=f"lanes{number}", daemon=True
            )
            thread.start()
            self._threads.append(thread)

    def _on_drop(self, lane: int, reason: str, number: int) -> None:
        if reason == service.LOST:
            self._report(None)
            return
        if self._dialect is PMDK:
            # Its replies cannot express a failure: without this, its initiator would wait forever.
            self._lanes[lane].hang_up()
        text = f"lane {lane} was given up: {reason}"
        if number:
            text += f" ({os.strerror(number)})"
        self._report(service.error_for(reason, text, number))

    # --- closing ------------------------------------------------------------------------------

    def close(self) -> None:
        """Stop serving, disconnect, deregister. Idempotent."""
        self._stopping = True
        # The accept thread may still be making the service.
        for thread in self._threads[:1]:
            thread.join()
        if self._service is not None:
            self._service.stop()
        for thread in self._threads[1:]:
            thread.join()
        self._threads.clear()
        for group in (self._lanes, self._queues, self._memories, self._domains):
            for item in group:
                item.close()
            group.clear()
        if self._staging is not None:
            self._staging.close()
            self._staging = None
        if self._listener is not None:
            self._listener.close()
        self.fabric.close()


def _first_that_works(
    providers: tuple[str, ...], address: str, carrier: int | None = None
) -> tuple[FabricModule, Fabric]:
    """Return the module and the fabric of the first provider that can be used at `address`."""
    problem: RpmemError | None = None
    for provider in providers:
        try:
            if provider == SOCKETPAIR:
                if carrier is None:
                    continue
                pairs = _fabric.load(SOCKETPAIR)
                return pairs, pairs.Fabric(provider, address, listen=True, carrier=carrier)
            module = _fabric.load(provider)
            return module, module.Fabric(provider, address, listen=True)
        except (MissingExtension, ProviderUnavailable) as error:
            problem = problem or error
    raise problem or ProviderUnavailable("the initiator offered no provider")


def _threads_for(lanes: int) -> int:
    """Choose the threads so as to leave cores to others, as service threads poll."""
    return max(1, min(lanes, (os.cpu_count() or 1) // 2, 4))
