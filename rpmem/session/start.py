"""The calls that start a session or remove a pool: `create`, `open` and `remove`.

They start rpmemd on the target, agree on a protocol with it, and connect the lanes.
"""

from __future__ import annotations

import logging
import operator
import warnings
import weakref
from typing import TYPE_CHECKING, Final, NamedTuple, TypedDict, Unpack

from rpmem._version import __version__
from rpmem.base import environment as _environment
from rpmem.base import interrupts
from rpmem.base import logs as _logs
from rpmem.base.environment import Environment, encryption_of, hosts_in, protocol_of
from rpmem.base.target import Target, require_name
from rpmem.control import pmdk
from rpmem.control.initiator import InitiatorSession
from rpmem.control.initiator_machine import InitiatorMachine
from rpmem.control.messages import MAX_LANES, Create, Hello, Open, Ready, features
from rpmem.control.pmdk_initiator import PmdkInitiatorSession
from rpmem.errors import (
    LaneRefused,
    ProviderUnavailable,
    ReplicaLost,
    RpmemError,
    UsageError,
    VersionMismatch,
)
from rpmem.files.attributes import PoolAttributes, require_attributes
from rpmem.launch import launch
from rpmem.launch.base import Transport
from rpmem.memory.region import Region
from rpmem.session.channel import Channel, LegacySpoken
from rpmem.session.encryption import asked as asked_for
from rpmem.session.encryption import described, refuse_pmdk, require
from rpmem.session.offer import DEFAULT_PROVIDER, Offer, explain, pmdk_provider
from rpmem.session.options import ReachKeywords, SessionOptions
from rpmem.session.removal import remove_pool
from rpmem.session.replica import Replica

if TYPE_CHECKING:
    from typing_extensions import Buffer

log = logging.getLogger("rpmem")

DEFAULT_LANES: Final = 4
DEFAULT_SPIN_US: Final = 100
# Large strict data travels in messages of this size: few messages, and few enough under way to stay
# in a core's cache.
_MESSAGE_SIZE: Final = 129 << 12
_PMDK_QUEUE_SIZE: Final = 50


class _Start:
    """Successive attempts to begin a session, in the protocol the target speaks."""

    def __init__(
        self,
        target: Target,
        region: Region,
        environment: Environment,
        *,
        owns_region: bool,
        options: SessionOptions,
        encryption: str,
    ) -> None:
        self._encryption = encryption
        self._asked_for = "it was asked for" if options.provider else ""
        if environment.provider and not options.provider:
            self._asked_for = "RPMEM_PROVIDER names it"
        self._target = target
        self._region = region
        self._owns_region = owns_region
        self._environment = environment
        self._launcher = options.launcher or environment.launcher
        command = options.command
        if command is None and not target.is_local:
            # Falling back starts the same command again.
            command = environment.next_command()
        self._command = command
        self._timeout_s = _environment.timeout_of(options.timeout)

    def native(self, request: Create | Open) -> tuple[Replica, Ready]:
        """Begin a session in our own protocol.

        Raises
        ------
        LegacySpoken
            The target is PMDK's rpmemd.
        """
        hello = Hello.of_this_process(f"rpmem {__version__}", features())
        machine = InitiatorSession(hello, where=str(self._target))
        return self._begin(machine, request, ipv4_only=False)

    def pmdk(self, request: Create | Open) -> tuple[Replica, Ready]:
        """Begin a session in PMDK's protocol."""
        refuse_pmdk(self._encryption, self._target)
        log.warning(
            "%s: the target speaks PMDK's protocol, which does not authenticate its lanes",
            self._target,
        )
        provider = pmdk_provider(request.providers, self._environment, str(self._target))
        request = request.replaced(providers=(provider,), message_size=pmdk.MESSAGE_SIZE)
        if request.pool_size == 0:
            request = request.replaced(pool_size=self._region.size)
        machine = PmdkInitiatorSession(where=str(self._target))
        return self._begin(machine, request, ipv4_only=provider == "sockets")

    def _begin(
        self, machine: InitiatorMachine, request: Create | Open, *, ipv4_only: bool
    ) -> tuple[Replica, Ready]:
        transport = launch(
            self._target,
            [],
            environment=self._environment,
            launcher=self._launcher,
            command=self._command,
            timeout_s=self._timeout_s,
            ipv4_only=ipv4_only,
        )
        known: list[weakref.ref[Replica]] = []

        def on_failure(error: RpmemError) -> None:
            if not isinstance(error, LegacySpoken):
                _logs.lost(error)
            # Weakly: a replica that is not referenced elsewhere must be freed, and its channel too.
            for reference in known:
                if (replica := reference()) is not None:
                    replica.on_failure(error)

        channel = Channel(
            transport,
            machine,
            where=str(self._target),
            timeout_s=self._timeout_s,
            on_failure=on_failure,
        )
        offer = Offer(request.providers, self._asked_for or "PMDK's protocol knows no other")
        if isinstance(machine, InitiatorSession):
            offer = self._offer(request.providers, transport)
            request = request.replaced(providers=offer.providers)
        asked = False
        try:
            channel.greet()
            asked = True
            ready = (
                channel.create(request) if isinstance(request, Create) else channel.open(request)
            )
        except BaseException as error:
            with interrupts.undoing():
                self._undo(channel, request if asked else None)
            if isinstance(error, ProviderUnavailable):
                explain(error, offer)
            raise
        replica = Replica(
            self._target,
            request.pool_set,
            self._region,
            channel,
            timeout_s=self._timeout_s,
            owns_region=self._owns_region,
        )
        replica.provider, replica.choice = offer.outcome(ready.provider)
        known.append(weakref.ref(replica))
        if channel.failure is not None:
            replica.on_failure(channel.failure)
        return replica, ready

    def _undo(self, channel: Channel, request: Create | Open | None) -> None:
        """End a session, and remove what it may have created; None: nothing was requested."""
        if request is None:
            channel.transport.kill()
            channel.abandon()
            return
        creating = isinstance(request, Create)
        try:
            channel.close(remove=creating)
        except RpmemError as error:
            log.info("%s", error)
            # An rpmemd that ends by itself, without an error, removes what it created.
            if creating and (channel.transport.forced or channel.transport.exit_status()):
                interrupts.left_behind(f"{self._target}: {request.pool_set}")

    def _offer(self, asked: tuple[str, ...], transport: Transport) -> Offer:
        """Return what to offer in our own protocol: what was asked for, or the best there is."""
        if self._asked_for:
            offer = Offer(asked, self._asked_for)
        else:
            offer = Offer.best(
                self._target, transport.peer_host, self._environment, self._encryption
            )
        return offer if transport.carrier is None else offer.with_pairs()


# --- the call set ---------------------------------------------------------------------------


def create(
    target: str | Target,
    pool_set_name: str,
    buffer: Buffer | Region,
    nlanes: int | None = None,
    attributes: PoolAttributes | None = None,
    *,
    pool_size: int | None = None,
    parts: int = 0,
    shared: object = None,
    **session: Unpack[ReachKeywords],
) -> Replica:
    """Create a pool on a target and return the replica, connected.

    Parameters
    ----------
    target : str or Target
        ``[user@]host[:port]``, or ``local:[directory]`` for rpmemd as a child process.
    pool_set_name : str
        Name of a poolset(5) file in the target's pool set directory.
    buffer : buffer or Region
        Writable contiguous memory to replicate; its length is that of the pool. It is kept alive,
        and cannot be resized, until `Replica.close`.
    nlanes : int, optional
        Calls that can be in progress at once; the target may grant fewer.
    attributes : PoolAttributes, optional
        For the headers on the target; none for a pool set with ``OPTION NOHDRS``.
    pool_size : int, optional
        Size in bytes, if the buffer is larger than the pool.
    parts : int
        Let the target write the pool set file with this many parts, if it is missing.
    shared : object, optional
        With the provider ``verbs``: a pyverbs PD in which to create the lanes, or a tuple of a PD
        and MR objects that contain the buffer.
    **session
        `provider` (``stream``, ``verbs``, or one of libfabric's), `step`, `launcher`, `command`
        (instead of ``RPMEM_CMD``), `timeout` (seconds without any progress), `protocol`
        (``native`` or ``pmdk``, instead of ``RPMEM_PROTOCOL``), `lane_hosts` (instead of
        ``RPMEM_LANE_HOSTS``) and `encryption`, see `rpmem.session.options.SessionOptions`.

    Raises
    ------
    RpmemError
        The kind of error says why. Nothing is left behind on the target, unless it was lost
        meanwhile; the log then says so.
    """
    _settings()

    def work() -> Replica:
        with _logs.call(f"create {target} {pool_set_name}"):
            place = Target.of(target)
            options = SessionOptions(nlanes=nlanes, **session)
            creation = _Creation(attributes, parts)
            return _start(
                place, pool_set_name, buffer, options, creation, pool_size=pool_size, shared=shared
            )

    return interrupts.guarded(
        work, lambda replica: replica.release(undo=True), undo_s=interrupts.UNDO_S
    )


def open(
    target: str | Target,
    pool_set_name: str,
    buffer: Buffer | Region,
    nlanes: int | None = None,
    *,
    pool_size: int | None = None,
    parts: int = 0,
    shared: object = None,
    **session: Unpack[ReachKeywords],
) -> Replica:
    """Open a pool on a target and return the replica, connected.

    The parameters are those of `create`, except `attributes`: ``Replica.attributes`` holds what the
    pool's header says. `parts` is accepted but has no effect, since the pool exists. Neither the
    buffer nor the replica is filled from the other.
    """
    _settings()

    def work() -> Replica:
        with _logs.call(f"open {target} {pool_set_name}"):
            place = Target.of(target)
            options = SessionOptions(nlanes=nlanes, **session)
            return _start(
                place, pool_set_name, buffer, options, None, pool_size=pool_size, shared=shared
            )

    return interrupts.guarded(work, lambda replica: replica.close())


class _Creation(NamedTuple):
    """The parameters of a pool that does not exist yet."""

    attributes: PoolAttributes | None
    parts: int


class _Asked(TypedDict):
    """The parameters common to all requests."""

    pool_set: str
    pool_size: int
    lanes: int
    providers: tuple[str, ...]
    message_size: int
    step: str
    encrypt: bool


def _request(asked: _Asked, creation: _Creation | None) -> Create | Open:
    if creation is None:
        return Open(**asked)
    attributes = creation.attributes
    packed = None if attributes is None or attributes.is_zero else attributes.pack()
    return Create(**asked, attributes=packed, parts=creation.parts)


def _start(
    target: Target,
    pool_set_name: str,
    buffer: Buffer | Region,
    options: SessionOptions,
    creation: _Creation | None,
    *,
    pool_size: int | None,
    shared: object,
) -> Replica:
    environment = _environment.current()
    protocol = protocol_of(options.protocol, environment)
    lane_hosts = _lane_hosts(options.lane_hosts, environment)
    if creation is not None and creation.attributes is not None:
        require_attributes(creation.attributes)
    encryption = encryption_of(options.encryption, environment)
    provider = options.provider or environment.provider or DEFAULT_PROVIDER
    spin_us = DEFAULT_SPIN_US if environment.spin_us is None else environment.spin_us
    lanes = _lane_count(options.nlanes, environment.max_nlanes)
    owns_region = not isinstance(buffer, Region)
    region = buffer if isinstance(buffer, Region) else Region.from_buffer(buffer)
    replica: Replica | None = None
    try:
        asked: _Asked = {
            "pool_set": pool_set_name,
            "pool_size": region.size if pool_size is None else min(pool_size, region.size),
            "lanes": lanes,
            "providers": (provider,),
            "message_size": _MESSAGE_SIZE,
            "step": options.step,
            "encrypt": protocol != "pmdk" and asked_for(encryption, target, provider),
        }
        start = _Start(
            target,
            region,
            environment,
            owns_region=owns_region,
            options=options,
            encryption=encryption,
        )
        replica, ready, native = _begin(start, _request(asked, creation), protocol)
        if creation is not None:
            replica.attributes = creation.attributes
        if options.nlanes is not None and len(ready.lanes) < lanes:
            warnings.warn(
                f"{target}: {len(ready.lanes)} lanes were granted, not {lanes}", stacklevel=2
            )
        if native and asked["encrypt"]:
            require(ready, target)
        replica.encryption = described(ready, encryption, target, native=native)
        replica.connect(
            ready,
            step=options.step,
            spin_s=spin_us * 1e-6,
            native=native,
            queue_size=environment.work_queue_size or (0 if native else _PMDK_QUEUE_SIZE),
            shared=shared,
            lane_hosts=lane_hosts,
        )
    except BaseException as error:
        if isinstance(error, ReplicaLost) and error.hint == ReplicaLost.hint:
            # There is no replica yet that could be reopened or detached.
            error.hint = f"Try again once {target} is back; its log says more"
        with interrupts.undoing():
            if replica is not None:
                replica.release(undo=creation is not None)
            elif owns_region:
                region.close()
        raise
    return replica


def _begin(start: _Start, request: Create | Open, protocol: str) -> tuple[Replica, Ready, bool]:
    """Begin a session; the third result tells whether it is in our own protocol."""
    if protocol != "pmdk":
        try:
            return *start.native(request), True
        except LegacySpoken as error:
            if protocol == "native":
                raise VersionMismatch(
                    "the target is PMDK's rpmemd, whose protocol is not allowed here",
                    where=error.where,
                    hint="RPMEM_PROTOCOL=auto or protocol='auto' allows it; "
                    "its lanes are not authenticated",
                ) from None
    return *start.pmdk(request), False


def _lane_hosts(wanted: str | None, environment: Environment) -> tuple[str, ...]:
    if wanted is None:
        return environment.lane_hosts
    try:
        return hosts_in(wanted) if wanted else ()
    except ValueError as error:
        raise UsageError(f"lane_hosts: {error}") from None


def _settings() -> Environment:
    """Return the environment; from now on the log follows it."""
    environment = _environment.current()
    _logs.set_up(environment)
    return environment


def _lane_count(wanted: int | None, limit: int) -> int:
    try:
        lanes = DEFAULT_LANES if wanted is None else operator.index(wanted)
    except TypeError:
        raise UsageError(f"nlanes is {wanted!r}, which is not a possible number of lanes") from None
    if not 1 <= lanes <= MAX_LANES:
        raise LaneRefused(f"a replica cannot have {lanes} lanes, only 1 to {MAX_LANES}")
    return min(lanes, limit)


def remove(
    target: str | Target,
    name: str,
    force: bool = False,
    pool_set: bool = False,
    *,
    launcher: str | None = None,
    command: str | None = None,
    timeout: float | None = None,
) -> None:
    """Remove a pool on a target.

    Parameters
    ----------
    target, name
        As for `create`.
    force : bool
        Remove what can be removed, and ignore errors with parts.
    pool_set : bool
        Remove the pool set file as well.

    Raises
    ------
    PoolSetError
        The pool does not exist, is in use, or is not a pool set.
    LaunchError
        rpmemd could not be started.
    """
    environment = _settings()

    def work() -> None:
        with _logs.call(f"remove {target} {name}"):
            remove_pool(
                Target.of(target),
                require_name(name),
                force=force,
                pool_set_too=pool_set,
                environment=environment,
                launcher=_environment.check_text("launcher", launcher) or environment.launcher,
                command=_environment.check_text("command", command),
                timeout_s=_environment.timeout_of(timeout),
            )

    interrupts.guarded(work)
