"""The errors for what ends a lane, as far as the lane itself knows it."""

from __future__ import annotations

import os

from rpmem.errors import (
    DeadlineExceeded,
    FlushFailed,
    MalformedMessage,
    RangeError,
    RemoteError,
    ReplicaLost,
    RpmemError,
)
from rpmem.wire.lane import LANE_EXPIRED, LANE_GARBLED, LANE_INTERRUPTED, LANE_REFUSED
from rpmem.wire.messages import REPLY_BAD_RANGE, REPLY_FLUSH_FAILED


def error_of(
    fault: int, refusal: int, detail: int, *, where: str, timeout_s: float
) -> RpmemError | None:
    """Return the error for a fault; None for a connection that broke, for whatever reason.

    Parameters
    ----------
    fault : int
        The state of the lane.
    refusal, detail : int
        If the target refused a message: status and number of its reply.
    where : str
        The target.
    timeout_s : float
        How long it had made no progress.
    """
    if fault == LANE_REFUSED and refusal == REPLY_FLUSH_FAILED:
        return FlushFailed(
            f"the target's medium refused the data: {os.strerror(detail)}",
            where=where,
            errno=detail,
            hint="The data of this call is not durable there; check the target's device",
        )
    if fault == LANE_REFUSED and refusal == REPLY_BAD_RANGE:
        return RangeError("the target found the range outside its pool", where=where)
    if fault == LANE_REFUSED:
        return RemoteError(f"the target refused a message (status {refusal})", where=where)
    if fault == LANE_GARBLED:
        return MalformedMessage("the target broke the in-band protocol", where=where)
    if fault == LANE_INTERRUPTED:
        return ReplicaLost(
            "a read was interrupted before the target had sent what it asked for",
            where=where,
            hint="Attach or open the replica again",
        )
    if fault == LANE_EXPIRED:
        return DeadlineExceeded(
            f"the target made no progress for {timeout_s:g} s",
            where=where,
            hint="What was not acknowledged may not be there. Close the replica, or use "
            "pool.detach to continue without it",
        )
    return None


def broken(detail: int, *, where: str) -> ReplicaLost:
    """Return the error for a connection that broke, if nothing more is known than its errno."""
    reason = os.strerror(detail) if detail else "closed by the target"
    return ReplicaLost(f"a lane's connection broke: {reason}", where=where)
