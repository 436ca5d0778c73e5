"""The fabric over byte streams: its parts in one namespace."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from rpmem.fabric.stream.fabric import Fabric
from rpmem.fabric.stream.handshake import need_encryption
from rpmem.fabric.stream.lane import FabricLane
from rpmem.fabric.stream.listener import TcpListener
from rpmem.fabric.stream.memory import Domain, Memory
from rpmem.fabric.stream.pairs import PairListener, Taker, can_carry
from rpmem.fabric.stream.queue import Queue
from rpmem.fabric.stream.request import Request

if TYPE_CHECKING:
    from rpmem.fabric import contract

# In this order a twin of other fabrics' list is none.
__all__ = ["Fabric", "Domain", "Memory", "Queue", "FabricLane"]  # noqa: RUF022
__all__ += ["Listener", "Request", "Taker", "can_carry", "need_encryption"]


def Listener(fabric: contract.Fabric, *, lanes: int = 0) -> TcpListener | PairListener:  # noqa: N802
    """Listen at the fabric's address, or make pairs of sockets, for so many lanes."""
    own = cast("Fabric", fabric)
    if own.carrier is not None:
        return PairListener(own, lanes)
    return TcpListener(own, lanes=lanes)
