"""What bounds a replica's messages: what the target granted, as far as this side goes along."""

from __future__ import annotations

from typing import NamedTuple

from rpmem.control.messages import Ready
from rpmem.control.pmdk import REQUEST_SIZE

_REPLY_SLOTS = 8
_LONG = 1 << 20
# What a target may make a lane of this side hold, whatever window it grants.
_MOST_IN_WINDOW = 32 << 20
_LARGEST_WINDOW = 64


class Limits(NamedTuple):
    """Limits of every lane of one replica.

    Attributes
    ----------
    message_size : int
        Bytes of the largest message, header included.
    window : int
        Messages that may be unanswered.
    reply_slots : int
        Answers that a lane has room for.
    put_limit : int or None
        Relaxed ranges up to so many bytes travel inside messages, PMDK's strict ranges too; None:
        what is best for the core.
    put_most : int or None
        And so do those above so many bytes; None: none do.
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
        """Take a target's grants in our own protocol; `paces` is the fabric's."""
        # What is granted, if it is not out of proportion.
        room = max(_MOST_IN_WINDOW // ready.message_size, 1)
        return cls(
            message_size=ready.message_size,
            window=min(ready.window, room, _LARGEST_WINDOW),
            reply_slots=_REPLY_SLOTS,
            put_limit=None,
            # Over a byte stream long ranges go faster inside messages, of which only a few are
            # on their way at once: they stay in the caches. But each answer makes durable what
            # came before, and where that is an msync, one at the end is best.
            put_most=_LONG if paces and ready.medium != "page" else None,
            staging=ready.staging,
        )

    @classmethod
    def pmdk(cls, ready: Ready) -> Limits:
        """Take PMDK's: a lane has one request under way, and its size is that of the data."""
        return cls(
            message_size=REQUEST_SIZE + ready.message_size,
            window=1,
            reply_slots=1,
            # Over verbs, strict data of any length go inside messages, as librpmem sends them.
            put_limit=ready.message_size if ready.provider == "sockets" else 1 << 62,
            put_most=None,
            staging=0,
        )
