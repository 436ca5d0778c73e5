"""Which hardware for lanes this machine has, according to the kernel."""

from __future__ import annotations

import os

__all__ = ["has_node", "has_rdma_device"]


def has_node(prefix: str) -> bool:
    """Return whether /dev has a node whose name begins with `prefix`."""
    try:
        return any(name.startswith(prefix) for name in os.listdir("/dev"))
    except OSError:
        return False


def has_rdma_device() -> bool:
    """Return whether this machine has a device that RDMA verbs can use."""
    try:
        return bool(os.listdir("/sys/class/infiniband"))
    except OSError:
        return False
