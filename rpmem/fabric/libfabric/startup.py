"""Loading libfabric without its delays.

Some distributions link libfabric with the libraries of long discontinued interconnects (PSM, PSM2).
The constructor of each sleeps 100 ms to calibrate a clock, in every process, hardware or not.
On a machine without such hardware, stand-ins that answer "no device" are loaded in their place.

The first query to libfabric then reads all of ``/proc/kallsyms``, to find out whether RDMA devices
could reach the memory of graphics cards. Without an RDMA device the answer is useless, and
libfabric is told that the file does not exist.

Neither is done if libfabric is already loaded, nor with ``RPMEM_PLAIN_LIBFABRIC=1``.
"""

from __future__ import annotations

import os
from contextlib import suppress
from importlib import import_module
from importlib.machinery import EXTENSION_SUFFIXES
from mmap import ACCESS_READ, mmap
from types import ModuleType

from rpmem.base import hardware, libraries, library
from rpmem.errors import MissingExtension

__all__ = ["load"]

_HERE = os.path.dirname(__file__)
_STAND_INS = (
    # file built by setup.py, library it replaces, device nodes, variable that asks for the real one
    ("no_psm", b"libpsm_infinipath.so.1", "ipath", "PSM_DEVICES"),
    ("no_psm2", b"libpsm2.so.2", "hfi1", "PSM2_DEVICES"),
)


def load() -> ModuleType:
    """Import the fabric over libfabric, in the quickest way this machine allows.

    Raises
    ------
    MissingExtension
        The compiled part or the library it needs is missing.
    """
    path = _path()
    stand_ins = _load_stand_ins(path) if path else []
    try:
        handle = libraries.opened("libfabric")
    except MissingExtension:
        if not stand_ins:
            raise
        # Perhaps this libfabric needs more of PSM than the stand-ins have: give it the real ones.
        for each in stand_ins:
            library.unload(each)
        handle = libraries.opened("libfabric")
    module = import_module("rpmem.fabric.libfabric.api")
    if path and not hardware.has_rdma_device():
        _start(handle)
    return module


def _path() -> str | None:
    """Return libfabric's file, or None if it is to be loaded as usual."""
    if os.environ.get("RPMEM_PLAIN_LIBFABRIC", "0") not in ("", "0"):
        return None
    path = libraries.path_of("libfabric")
    return None if path is None or library.is_loaded(b"libfabric.so.1") else path


def _start(handle: int) -> None:
    try:
        from rpmem.fabric.libfabric import load as loader
    except MissingExtension:
        return  # not built: this only costs time
    loader.start_without_kernel_symbols(handle)


def _load_stand_ins(path: str) -> list[int]:
    if "psm" in os.environ.get("FI_PROVIDER", ""):
        return []
    with open(path, "rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as content:
        wanted = [each for each in _STAND_INS if content.find(each[1]) >= 0]
    handles = []
    for name, stands_for, device, wish in wanted:
        built = _built(name)
        if built is None or wish in os.environ:
            continue
        if hardware.has_node(device) or library.is_loaded(stands_for):
            continue
        with suppress(ImportError):
            handles.append(library.load(os.fsencode(built)))
    return handles


def _built(name: str) -> str | None:
    for suffix in EXTENSION_SUFFIXES:
        path = os.path.join(_HERE, name + suffix)
        if os.path.exists(path):
            return path
    return None
