"""The fabrics, by the names of their providers; loading libfabric without its waits.

``verbs`` is rpmem's own fabric over RDMA verbs. Everything else is a provider of libfabric, whose
own verbs provider is called ``ofi-verbs`` here.

Distributions link libfabric with the libraries of interconnects that ended years ago (PSM, PSM2).
The constructor of each sleeps 100 ms to calibrate a clock, in every process, hardware or not.
Where there is no such hardware, stand-ins that answer "no device" are loaded in their place.

The first question to libfabric then reads ``/proc/kallsyms`` from end to end, to learn whether
RDMA devices could reach the memory of graphics cards. Where there is no RDMA device the answer
has no use, and libfabric is told that the file is not there.

Neither is done when libfabric is in the process already, nor with ``RPMEM_PLAIN_LIBFABRIC=1``.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import threading
from importlib import import_module
from importlib.machinery import EXTENSION_SUFFIXES
from types import ModuleType

from rpmem.errors import MissingExtension, RpmemError

__all__ = ["VERBS", "has_rdma_device", "leads_to", "load"]

VERBS = "verbs"

_HERE = os.path.dirname(__file__)
_STAND_INS = (
    # file built by setup.py, what it stands for, device nodes, the user's wish for the real one
    ("_no_psm", b"libpsm_infinipath.so.1", "ipath", "PSM_DEVICES"),
    ("_no_psm2", b"libpsm2.so.2", "hfi1", "PSM2_DEVICES"),
)
_lock = threading.Lock()
_module: ModuleType | None = None


def load(provider: str = "") -> ModuleType:
    """Import what carries lanes of a provider.

    Libfabric is loaded in the quickest way this machine allows.

    Parameters
    ----------
    provider : str
        Its name; any other than ``verbs`` is libfabric's business.

    Raises
    ------
    MissingExtension
        The compiled part is not there, or the library it needs is not.
    """
    global _module
    if provider == VERBS:
        return import_module("rpmem.fabric.verbs")
    with _lock:
        if _module is None:
            _module = _load_now()
        return _module


def _load_now() -> ModuleType:
    loader = _loader()
    stand_ins = _load_stand_ins(loader) if loader else []
    try:
        module = import_module("rpmem._libfabric")
    except MissingExtension:
        if not loader or not stand_ins:
            raise
        # Perhaps a libfabric that wants more of PSM than the stand-ins have: give it the real ones.
        for handle in stand_ins:
            loader.unload(handle)
        module = import_module("rpmem._libfabric")
    if loader and not has_rdma_device():
        loader.start_without_kernel_symbols()
    return module


def _loader() -> ModuleType | None:
    """Return the compiled helper, or None where libfabric is to be loaded in its own way."""
    if os.environ.get("RPMEM_PLAIN_LIBFABRIC", "0") not in ("", "0"):
        return None
    try:
        from rpmem.fabric import _load
    except MissingExtension:
        return None  # not built: only time is lost
    return None if _load.is_loaded(b"libfabric.so.1") else _load


def _load_stand_ins(loader: ModuleType) -> list[int]:
    if "psm" in os.environ.get("FI_PROVIDER", ""):
        return []
    handles = []
    for name, stands_for, device, wish in _STAND_INS:
        path = _built(name)
        if path is None or wish in os.environ:
            continue
        if _has_device(device) or loader.is_loaded(stands_for):
            continue
        handle = loader.load(os.fsencode(path))
        if handle:
            handles.append(handle)
    return handles


def _built(name: str) -> str | None:
    for suffix in EXTENSION_SUFFIXES:
        path = os.path.join(_HERE, name + suffix)
        if os.path.exists(path):
            return path
    return None


def _has_device(prefix: str) -> bool:
    try:
        return any(name.startswith(prefix) for name in os.listdir("/dev"))
    except OSError:
        return False


def leads_to(host: str) -> bool:
    """Return whether an RDMA device of this machine leads to another one."""
    if not has_rdma_device():
        return False
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        if any(ipaddress.ip_address(entry[4][0]).is_loopback for entry in found):
            return False
        load(VERBS).Fabric(VERBS, host, 1).close()
    except (OSError, ValueError, RpmemError):
        return False
    return True


def has_rdma_device() -> bool:
    """Return whether this machine has a device that RDMA verbs can use."""
    try:
        return bool(os.listdir("/sys/class/infiniband"))
    except OSError:
        return False
