"""The limits of a replica's messages: the target's grants, as far as this side accepts them."""

from __future__ import annotations

from typing import NamedTuple

from rpmem.control.messages import Ready
from rpmem.control.pmdk import REQUEST_SIZE

_REPLY_SLOTS = 8
_LONG = 1 << 20
# Most memory of a lane on this side, whatever window the target grants.
_MOST_IN_WINDOW = 32 << 20
_LARGEST_WINDOW = 64


class Limits(NamedTuple):
    """Limits of every lane of one replica.

    Attributes
    ----------
    message_size : int
        Bytes of the largest message, header included.
    window : int
        Most unanswered messages.
    reply_slots : int
        Number of answers that a lane has room for.
    put_limit : int or None
        Relaxed ranges up to this size travel inside messages, as do PMDK's strict ranges; None: the
        core's default.
    put_most : int or None
        Ranges above this size also travel inside messages; None: no ranges.
    staging : int
        Bytes of the buffer that one-sided operations reach instead of the pool; 0: the pool.
    """

    message_size: int
    window: int
    reply_slots: int
    put_limit: int | None
    put_most: int | None
    staging: int

    @classmethod
    def native(cls, ready: Ready, *, paces: bool) -> Limits:
        """Make limits from the grants in our own protocol; `paces` is the fabric's."""
        # The grant, unless it is unreasonably large.
        room = max(_MOST_IN_WINDOW // ready.message_size, 1)
        return cls(
            message_size=ready.message_size,
            window=min(ready.window, room, _LARGEST_WINDOW),
            reply_slots=_REPLY_SLOTS,
            put_limit=None,
            # Over a byte stream, long ranges go faster inside messages, as the few that are under
            # way stay in the caches. But each answer has to make its data durable, and if that
            # takes an msync, a single one at the end is best.
            put_most=_LONG if paces and ready.medium != "page" else None,
            staging=ready.staging,
        )

    @classmethod
    def pmdk(cls, ready: Ready) -> Limits:
        """Make limits for PMDK's protocol: one request per lane, whose size counts data only."""
        return cls(
            message_size=REQUEST_SIZE + ready.message_size,
            window=1,
            reply_slots=1,
            # Over verbs, strict data of any length goes inside messages, as in librpmem.
            put_limit=ready.message_size if ready.provider == "sockets" else 1 << 62,
            put_most=None,
            staging=0,
        )
