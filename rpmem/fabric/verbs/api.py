"""The fabric `verbs`, whose parts are compiled separately, under one name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rpmem.errors import MissingExtension
from rpmem.fabric.verbs.fabric import Fabric
from rpmem.fabric.verbs.lane import FabricLane
from rpmem.fabric.verbs.listener import Listener
from rpmem.fabric.verbs.memory import Domain, Memory, devices
from rpmem.fabric.verbs.queue import Queue
from rpmem.fabric.verbs.request import Request

if TYPE_CHECKING:
    from rpmem.fabric.verbs.pyverbs_objects import SharedDomain

__all__ = [
    "Domain",
    "Fabric",
    "FabricLane",
    "Listener",
    "Memory",
    "Queue",
    "Request",
    "devices",
    "share",
]


def share(given: object) -> SharedDomain:
    """Return what of a user's pyverbs objects lanes can be made in.

    Parameters
    ----------
    given : pyverbs.pd.PD or tuple
        A tuple holds a PD and then MR objects.

    Raises
    ------
    MissingExtension
        There is no pyverbs, or not one that rpmem can look into.
    """
    try:
        from rpmem.fabric.verbs.pyverbs_objects import share

        return share(given)
    except ModuleNotFoundError as error:
        raise MissingExtension(f"pyverbs objects cannot be used: {error}") from error
