"""The events of control sessions, on both sides and for both protocols."""

from __future__ import annotations

from typing import dataclass_transform

from rpmem.base.values import Value
from rpmem.control.handshake import Protocol
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
from rpmem.errors import RpmemError


@dataclass_transform(frozen_default=True)
class Event(Value):
    """Base of all events."""


class Greeted(Event):
    """The other side has answered and a version is agreed on.

    ``peer`` is None with PMDK's protocol, which has no such message.
    """

    protocol: Protocol
    version: str
    features: frozenset[str] = frozenset()
    peer: Hello | None = None


class SessionFailed(Event):
    """The session has failed: the protocol or the connection broke. Always the last event."""

    error: RpmemError


# --- at the target ----------------------------------------------------------------------------


class CreateRequested(Event):
    """Create and serve a pool; answer with `ready` or `error`."""

    request: Create


class OpenRequested(Event):
    """Serve an existing pool; answer with `ready` or `error`."""

    request: Open


class SetAttributesRequested(Event):
    """Rewrite the pool's attributes; answer with `done` or `error`. Never all zero."""

    attributes: bytes


class SetEpochRequested(Event):
    """Replace the record of the copy, if it may be; answer with `done` or `error`."""

    record: bytes
    discard: bool


class LeaveRequested(Event):
    """Mark the record of the copy as left; answer with `done` or `error`."""


class DigestsRequested(Event):
    """Make a range durable and take digests of it; answer with `digests` or `error`."""

    request: Digest


class LookRequested(Event):
    """Look at a pool, read a piece of it, or list pool sets; answer with `show` or `error`."""

    request: Look | Peek | List


class CloseRequested(Event):
    """Stop serving; remove the pool if requested and created here; answer `done` or `error`."""

    remove: bool


class InitiatorGone(Event):
    """The initiator's stream ended without a Close. The last event."""


# --- at the initiator -------------------------------------------------------------------------


class Opened(Event):
    """The pool was created or opened; now connect the lanes."""

    ready: Ready


class AttributesSet(Event):
    """The attributes were replaced."""


class RecordSet(Event):
    """The record of the target's copy is durable as it was asked for."""


class DigestsTaken(Event):
    """What was asked for is durable at the target, and has these digests there."""

    digests: bytes
    deep: bool = False


class Shown(Event):
    """The answer of a target that lets this side look."""

    answer: Seen | Content | Listed


class Closed(Event):
    """The target closed the pool properly. The last event."""


class Refused(Event):
    """The target refused the request. After create, open or close the session is over."""

    error: RpmemError


class LogReceived(Event):
    """A record of the target's log."""

    level: str
    message: str


class TargetFailed(Event):
    """The target can no longer serve the lanes; only `close` is still possible."""

    error: RpmemError


class LegacyTarget(Event):
    """The target is PMDK's rpmemd and has ended: start it again and speak PMDK 0.1. The last."""
