"""The fabrics, by the names of their providers.

``verbs`` is rpmem's own fabric over RDMA verbs, ``stream`` that over sockets. Everything else is a
provider of libfabric, whose own verbs provider is called ``ofi-verbs`` here.
"""

from __future__ import annotations

import socket
import threading
from importlib import import_module
from typing import TYPE_CHECKING, Literal, cast, overload

from rpmem.base import hardware
from rpmem.base.providers import SOCKETPAIR, STREAM, VERBS
from rpmem.errors import RpmemError
from rpmem.fabric.libfabric import startup

if TYPE_CHECKING:
    from rpmem.fabric.contract import FabricModule, StreamModule, VerbsModule

__all__ = ["encrypts", "leads_to", "load"]

_lock = threading.Lock()
_module: FabricModule | None = None


@overload
def load(provider: Literal["verbs"]) -> VerbsModule: ...
@overload
def load(provider: Literal["stream", "socketpair"]) -> StreamModule: ...
@overload
def load(provider: str = "") -> FabricModule: ...
def load(provider: str = "") -> FabricModule:
    """Import the fabric that carries lanes of a provider.

    Libfabric is loaded in the quickest way this machine allows.

    Parameters
    ----------
    provider : str
        Its name; all except ``verbs`` and ``stream`` are libfabric's.

    Raises
    ------
    MissingExtension
        The compiled part or the library it needs is missing.
    """
    global _module
    if provider == VERBS:
        return cast("VerbsModule", import_module("rpmem.fabric.verbs.api"))
    if provider in (STREAM, SOCKETPAIR):
        return cast("StreamModule", import_module("rpmem.fabric.stream.api"))
    with _lock:
        if _module is None:
            _module = cast("FabricModule", startup.load())
        return _module


def encrypts(provider: str) -> bool:
    """Return whether lanes over a provider can be encrypted."""
    return provider == STREAM


def leads_to(host: str) -> bool:
    """Return whether an RDMA device of this machine leads to another one."""
    if not hardware.has_rdma_device():
        return False
    import ipaddress  # only here: it would take 1.4 ms of every start

    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        if any(ipaddress.ip_address(entry[4][0]).is_loopback for entry in found):
            return False
        load(VERBS).Fabric(VERBS, host, 1).close()
    except (OSError, ValueError, RpmemError):
        return False
    return True
