"""The fabric over libfabric: its separately compiled parts in one namespace."""

from __future__ import annotations

from rpmem.fabric.libfabric.fabric import Fabric, version
from rpmem.fabric.libfabric.lane import FabricLane
from rpmem.fabric.libfabric.listener import Listener
from rpmem.fabric.libfabric.memory import Domain, Memory
from rpmem.fabric.libfabric.queue import Queue
from rpmem.fabric.libfabric.request import Request

__all__ = [
    "Domain",
    "Fabric",
    "FabricLane",
    "Listener",
    "Memory",
    "Queue",
    "Request",
    "version",
]
