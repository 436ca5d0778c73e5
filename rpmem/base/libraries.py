"""The libraries that rpmem opens when they are first used, and the error where one is missing.

No part of rpmem is linked with them, so an installation works on any machine, with what that
machine has. ``RPMEM_LIBRARIES`` says where a library is, if not where the system has it, or that
one is not to be used: ``libfabric=mpi,libpmem2=none,libibverbs=/opt/ofed/lib/libibverbs.so.1``.
``mpi`` stands for the libfabric of an MPI that was installed as a Python package. Of libssl, the
one that Python's own ``ssl`` uses is taken: two in one process would each take their share of
memory, and time to start.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from types import MappingProxyType

from rpmem.base.printable import printable
from rpmem.base.remedies import remedy_for, shortage
from rpmem.errors import ConfigError, MissingExtension

__all__ = ["FILES", "chosen", "file_name", "opened", "path_of", "unsuitable"]

_VARIABLE = "RPMEM_LIBRARIES"
_NONE = "none"
_MPI = "mpi"
#: Python packages that have a libfabric of their own.
_MPI_PACKAGES = ("mpich", "impi-rt", "openmpi")

#: The libraries: the name that the dynamic loader knows, and Debian's packages.
FILES: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "libfabric": ("libfabric.so.1", "libfabric1"),
        "libpmem2": ("libpmem2.so.1", "libpmem2"),
        "libibverbs": ("libibverbs.so.1", "libibverbs1 ibverbs-providers"),
        "librdmacm": ("librdmacm.so.1", "librdmacm1"),
        "libmemkind": ("libmemkind.so.0", "libmemkind0"),
        "libssl": ("libssl.so.3", "libssl3"),
    }
)
_REMARKS = {
    "libmemkind": ", which Debian 13 does not have",
    "libssl": "; encryption='off' goes without, where nobody else reaches the network",
}

_FOLDERS = (
    f"/usr/lib/{os.uname().machine}-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
    "/usr/local/lib",
)

_lock = threading.Lock()
_handles: dict[str, int] = {}


def opened(name: str) -> int:
    """Return the handle of a library, which is opened at the first call.

    Parameters
    ----------
    name : str
        One of `FILES`.

    Raises
    ------
    MissingExtension
        It is not on this machine, or cannot be loaded; the message names its package.
    ConfigError
        ``RPMEM_LIBRARIES`` makes no sense.
    """
    with _lock:
        if name not in _handles:
            _handles[name] = _open(name)
        return _handles[name]


def file_name(name: str) -> str:
    """Return the file from which a library was opened, with no link on the way."""
    from rpmem.base import library

    return os.path.realpath(os.fsdecode(library.file_of(opened(name))))


def unsuitable(name: str, symbol: str, version: str) -> MissingExtension:
    """Return the error for a library that lacks a function, or has another version of it."""
    wanted = f"{symbol} of version {version}" if version else symbol
    return _error(name, f"has no {wanted}")


def chosen(variables: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return what ``RPMEM_LIBRARIES`` says: libraries and their files.

    Parameters
    ----------
    variables : mapping, optional
        Instead of ``os.environ``.

    Raises
    ------
    ConfigError
        It is no list of libraries of `FILES` with absolute paths, ``none``, or ``mpi``.
    """
    text = (os.environ if variables is None else variables).get(_VARIABLE, "")
    found = {}
    for each in filter(None, text.split(",")):
        name, _, place = each.strip().partition("=")
        words = (_NONE, _MPI) if name == "libfabric" else (_NONE,)
        if name not in FILES or not (place in words or os.path.isabs(place)):
            raise ConfigError(
                f"{_VARIABLE} has '{printable(each, 100)}', which is not one of "
                f"{', '.join(FILES)}, an equals sign, and an absolute path or 'none'",
                where="environment",
                hint=f"Correct {_VARIABLE}, or unset it",
            )
        found[name] = place
    return found


def path_of(name: str) -> str | None:
    """Return the file that `opened` would open, without opening it; None if that is not known."""
    try:
        path = _wanted(name)
    except MissingExtension:
        return None
    if os.path.isabs(path):
        return path if os.path.exists(path) else None
    # Not asked of the dynamic loader: where a file is in none of these, the loader finds it all the
    # same, and only what is made of the path is missing.
    for folder in _FOLDERS if "LD_LIBRARY_PATH" not in os.environ else ():
        if os.path.exists(f"{folder}/{path}"):
            return f"{folder}/{path}"
    return None


def _wanted(name: str) -> str:
    """Return what the dynamic loader is to open."""
    path = chosen().get(name, FILES[name][0])
    if path == _NONE:
        raise _error(name, f"is not used: {_VARIABLE} says so")
    return _of_mpi(name) if path == _MPI else path


def _open(name: str) -> int:
    from rpmem.base import library

    path = _wanted(name)
    if name == "libssl":
        # Python's own comes first: the loader takes what the process has of that name already.
        with suppress(ImportError):
            import_module("_ssl")
    try:
        return library.load(os.fsencode(path))
    except ImportError as error:
        what = f"cannot be loaded: {error}"
        if (number := shortage(error)) is not None:
            raise MissingExtension(
                f"{FILES[name][0]} {what}", errno=number, hint=remedy_for(number)
            ) from error
        raise _error(name, what) from error


def _of_mpi(name: str) -> str:
    """Return the libfabric of an MPI that is installed as a Python package."""
    from importlib import metadata

    for package in _MPI_PACKAGES:
        try:
            files = metadata.files(package) or []
        except metadata.PackageNotFoundError:
            continue
        for file in files:
            if file.name == FILES[name][0]:
                return os.path.realpath(str(file.locate()))
    raise _error(name, f"is in no installed package of {', '.join(_MPI_PACKAGES)}")


def _error(name: str, what: str) -> MissingExtension:
    file, package = FILES[name]
    return MissingExtension(
        f"{file} {what}",
        hint=f"Install {name} (Debian, Ubuntu: apt-get install {package})" + _REMARKS.get(name, ""),
    )
