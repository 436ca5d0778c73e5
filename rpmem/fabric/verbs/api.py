"""The fabric `verbs`: its separately compiled parts in one namespace."""

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
    """Return the part of a user's pyverbs objects in which lanes can be made.

    Parameters
    ----------
    given : pyverbs.pd.PD or tuple
        A tuple holds a PD and then MR objects.

    Raises
    ------
    MissingExtension
        pyverbs is missing, or rpmem cannot read its objects.
    """
    try:
        from rpmem.fabric.verbs.pyverbs_objects import share

        return share(given)
    except ModuleNotFoundError as error:
        raise MissingExtension(f"pyverbs objects cannot be used: {error}") from error
