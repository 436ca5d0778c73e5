"""The fabric over byte streams: its parts in one namespace."""

from __future__ import annotations

from rpmem.fabric.stream.fabric import Fabric
from rpmem.fabric.stream.lane import FabricLane
from rpmem.fabric.stream.listener import Listener, Request
from rpmem.fabric.stream.memory import Domain, Memory
from rpmem.fabric.stream.queue import Queue

__all__ = ["Domain", "Fabric", "FabricLane", "Listener", "Memory", "Queue", "Request"]
