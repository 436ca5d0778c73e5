"""Connecting the lanes of a session over its fabric."""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, cast

from rpmem.base.handles import Handle
from rpmem.base.providers import SOCKETPAIR, VERBS
from rpmem.base.steps import SEND_AFTER_WRITE, STEPS
from rpmem.control.messages import Ready
from rpmem.control.proof import pack_proof
from rpmem.engine.lanegroup import LaneGroup
from rpmem.errors import (
    ConnectFailed,
    DeadlineExceeded,
    FabricError,
    FabricFailure,
    RegistrationFailed,
    RpmemError,
    UsageError,
)
from rpmem.fabric import providers as _fabric
from rpmem.memory.region import Region
from rpmem.session.limits import Limits

if TYPE_CHECKING:
    from rpmem.engine.lanegroup import _Owner
    from rpmem.fabric.contract import Domain, Fabric, Lane, Memory, Queue, Taker
    from rpmem.wire import lane as wire

_USE = "the lanes of a replica"
_REPLY_SIZE = 64


class Lanes(Handle):
    """The connected lanes of one replica, and the fabric objects they need.

    Parameters
    ----------
    ready : Ready
        The target's grants.
    hosts : sequence of str
        Where the target may be reached, in order of preference.
    region : Region
        The local memory; its offset 0 is the pool's.
    timeout_s : float
        For all lanes together.
    native : bool
        Whether the in-band protocol is ours, or PMDK's.
    answers : bool
        Whether calls mostly wait for messages, not for one-sided posts.
    queue_size : int
        Operations a lane may have under way; 0 leaves it to the provider.
    shared : object, optional
        pyverbs objects of the user's own; only for the provider ``verbs``.
    check : callable, optional
        Called now and then while waiting for lanes; raises if they will not come.
    carrier : socket, optional
        Over which the target can pass lanes.

    Raises
    ------
    FabricError, DeadlineExceeded
        The provider is missing on this machine, or the target cannot be reached through it.
    """

    def __init__(
        self,
        ready: Ready,
        hosts: list[str],
        region: Region,
        *,
        timeout_s: float,
        native: bool = True,
        answers: bool = True,
        queue_size: int = 0,
        shared: object = None,
        check: Callable[[], None] | None = None,
        carrier: socket.socket | None = None,
    ) -> None:
        self._module = _fabric.load(ready.provider)
        self._ready = ready
        self._native = native
        self._answers = answers
        self._open: Callable[[str, str, int], Fabric]
        self._taker: Taker | None = None
        if ready.provider == SOCKETPAIR:
            self._taker = _taker(carrier, timeout_s)
            self._open = partial(_fabric.load(SOCKETPAIR).Fabric, carrier=self._taker)
        elif shared is None:
            self._open = partial(self._module.Fabric, queue_size=queue_size)
        else:
            if ready.provider != VERBS:
                raise UsageError(f"the provider {ready.provider} has no protection domains")
            verbs = _fabric.load(VERBS)
            self._open = partial(verbs.Fabric, queue_size=queue_size, shared=verbs.share(shared))
        self._check = check
        self._region = region
        self._uses_region = False
        self._domains: list[Domain] = []
        self._queues: list[Queue] = []
        self._memory: Memory | None = None
        self._opened: Fabric | None = None
        self._limits: Limits | None = None
        self.lanes: list[Lane] = []
        problem: RpmemError | None = None
        for host in dict.fromkeys(hosts):
            try:
                self._connect(host, timeout_s)
                return
            except (FabricError, DeadlineExceeded) as error:
                self.close()
                problem = problem or error
            except BaseException:
                self.close()
                raise
        raise problem or ConnectFailed("the target did not say where its lanes are")

    def _connect(self, host: str, timeout_s: float) -> None:
        ready = self._ready
        # The lanes send from it, registered or not.
        self._region.pin(_USE)
        self._uses_region = True
        self._opened = self._open(ready.provider, host, ready.port)
        proofs = [pack_proof(number, grant.token) for number, grant in enumerate(ready.lanes)]
        if ready.nonce is not None:
            self.fabric.secure(ready.nonce, proofs)
        limits = self._limits = (
            Limits.native(ready, paces=self.fabric.paces) if self._native else Limits.pmdk(ready)
        )
        for number, grant in enumerate(ready.lanes):
            if not self._domains or not self.fabric.pins:
                self._domains.append(self._module.Domain(self.fabric))
            domain = self._domains[-1]
            if self.fabric.pins and number == 0:
                self._memory = self._source(domain)
            queue = self._module.Queue(domain, answers=self._answers)
            self._queues.append(queue)
            lane = self._module.FabricLane(
                domain,
                queue,
                number,
                (limits.window, limits.message_size),
                (limits.reply_slots, _REPLY_SIZE),
                self._memory,
            )
            self.lanes.append(lane)
            lane.aim(grant.address, grant.key, ready.staging or ready.pool_size)
            if self._native:
                lane.connect(proofs[number])
            else:
                # PMDK's rpmemd uses the k-th connection as lane k.
                lane.connect(b"")
                self.fabric.await_lanes([lane], timeout_s, self._check)
        self.fabric.await_lanes(self.lanes, timeout_s, self._check)

    def _source(self, domain: Domain) -> Memory | None:
        """Register the pool; None if that is refused, so that its bytes have to be copied."""
        region = self._region
        try:
            return self._module.Memory(
                domain, region.address, region.size, source=True, keep=region
            )
        except RegistrationFailed:
            if not self._native:
                raise
            return None

    @property
    def fabric(self) -> Fabric:
        """The fabric of the lanes, until they are closed."""
        assert self._opened is not None
        return self._opened

    def can(self, name: str) -> bool:
        """Whether this side supports a step that the target supports."""
        step = STEPS.get(name)
        if step is None:
            return False
        if self.fabric.pins and self._memory is None:
            return step is SEND_AFTER_WRITE
        return not step.needs or bool(getattr(self.fabric, step.needs))

    def choose(self, wanted: str, where: str) -> str:
        """Choose the step: the best that both sides support, or the one asked for."""
        return choose_step(wanted, tuple(filter(self.can, self._ready.steps)), where)

    def group(self, step: str, owner: _Owner) -> LaneGroup:
        """Return the lanes for the core, with `step` as durability step."""
        limits = self._limits
        assert limits is not None
        return LaneGroup(
            cast("list[wire.Lane]", self.lanes),  # which the lanes of every fabric are
            step,
            self._region,
            message_size=limits.message_size,
            window=limits.window,
            owner=owner,
            put_limit=limits.put_limit,
            put_most=limits.put_most,
            remote_base=0 if self._native else self._ready.lanes[0].address,
            dialect="native" if self._native else "pmdk",
            staging=limits.staging,
        )

    def register(self, address: int, length: int) -> Memory | None:
        """Register other local memory, to read into; None if that is not needed."""
        if not self.fabric.pins:
            return None
        return self._module.Memory(self._domains[0], address, length)

    def close(self) -> None:
        """Disconnect. Idempotent."""
        for group in (self.lanes, self._queues):
            for item in group:
                item.close()
            group.clear()
        if self._memory is not None:
            self._memory.close()
            self._memory = None
        for domain in self._domains:
            domain.close()
        self._domains.clear()
        if self._opened is not None:
            self._opened.close()
            self._opened = None
        if self._taker is not None:
            self._taker.close()
        if self._uses_region:
            self._uses_region = False
            self._region.unpin(_USE)


def _taker(carrier: socket.socket | None, timeout_s: float) -> Taker:
    assert carrier is not None  # nothing else was offered
    return _fabric.load(SOCKETPAIR).Taker(carrier, timeout_s)


def choose_step(wanted: str, possible: tuple[str, ...], where: str) -> str:
    """Choose the step: the best that both sides support, or the one asked for."""
    if wanted == "auto":
        known = [name for name in possible if name in STEPS and STEPS[name].automatic]
        if not known:
            known = list(possible)
        if known:
            return known[0]
    elif wanted in possible:
        return wanted
    raise FabricFailure(
        f"the step {wanted!r} is not possible with this target, only {', '.join(possible)}",
        where=where,
        hint="flush needs provider='verbs'; commit and read-after-write need a fabric that writes "
        "past rpmemd, such as provider='tcp'; read-after-write must be allowed on the target, too "
        "(rpmemd --persist-apm)",
    )
