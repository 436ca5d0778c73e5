"""The compiled parts of rpmem, and the error for a part that is missing or cannot be loaded.

Parts are imported by name, from Python and by each other. If one was not built, or the library that
it needs is not on this machine, every such import ends here and raises `MissingExtension` with the
name of the library's package.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from importlib.machinery import ExtensionFileLoader, ModuleSpec, PathFinder
from types import ModuleType

from rpmem.base.remedies import remedy_for, shortage
from rpmem.errors import MissingExtension

__all__ = ["LIBRARIES", "install", "is_there"]

#: The libraries that parts need besides libc, by pkg-config's names. setup.py reads this table and
#: leaves out parts whose libraries it does not find.
LIBRARIES = {
    "rpmem.memory.changes.digests": ("libxxhash",),
    "rpmem.memory.changes.unit_digests": ("libxxhash",),
    "rpmem.memory.device": ("libpmem2",),
    "rpmem.memory.mapping": ("libpmem2",),
    "rpmem.memory.media": ("libpmem2",),
    "rpmem.memory.region": ("libpmem2",),
    "rpmem.fabric.libfabric.fabric": ("libfabric",),
    "rpmem.fabric.libfabric.failures": ("libfabric",),
    "rpmem.fabric.libfabric.lane": ("libfabric",),
    "rpmem.fabric.libfabric.listener": ("libfabric",),
    "rpmem.fabric.libfabric.memory": ("libfabric",),
    "rpmem.fabric.libfabric.ops": ("libfabric",),
    "rpmem.fabric.libfabric.queue": ("libfabric",),
    "rpmem.fabric.libfabric.request": ("libfabric",),
    "rpmem.fabric.verbs.completions": ("libibverbs", "librdmacm"),
    "rpmem.fabric.verbs.fabric": ("libibverbs", "librdmacm"),
    "rpmem.fabric.verbs.failures": ("libibverbs", "librdmacm"),
    "rpmem.fabric.verbs.lane": ("libibverbs", "librdmacm"),
    "rpmem.fabric.verbs.listener": ("libibverbs", "librdmacm"),
    "rpmem.fabric.verbs.memory": ("libibverbs", "librdmacm"),
    "rpmem.fabric.verbs.posts": ("libibverbs", "librdmacm"),
    "rpmem.fabric.verbs.probe": ("libibverbs", "librdmacm"),
    "rpmem.fabric.verbs.pyverbs_objects": ("libibverbs", "librdmacm"),
    "rpmem.fabric.verbs.queue": ("libibverbs", "librdmacm"),
    "rpmem.fabric.verbs.request": ("libibverbs", "librdmacm"),
    "rpmem.memkind.kinds": ("memkind",),
}

# Debian and Ubuntu call the libraries' packages LIBRARY-dev, with this exception.
_PACKAGES = {"memkind": "libmemkind-dev"}
_REMARKS = {
    "memkind": ". Debian 13 does not have this package. Everything else works without it",
}


def _missing(name: str, what: str) -> MissingExtension:
    """Make the error for a missing part."""
    libraries = LIBRARIES.get(name, ())
    again = (
        "run `make build` in a source tree, else "
        "`pip install --force-reinstall --no-cache-dir rpmem`"
    )
    if not libraries:
        return MissingExtension(what, where=name, hint=again[0].upper() + again[1:])
    packages = " ".join(_PACKAGES.get(library, f"{library}-dev") for library in libraries)
    hint = f"Install {' and '.join(libraries)} (Debian, Ubuntu: apt-get install {packages}), then "
    remark = "".join(_REMARKS.get(library, "") for library in libraries)
    return MissingExtension(what, where=name, hint=hint + again + remark)


class _Loader(ExtensionFileLoader):
    """Loads a part; turns the dynamic loader's complaint into an error of ours."""

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        try:
            return super().create_module(spec)
        except ImportError as error:
            what = f"this part of rpmem cannot be loaded: {error}"
            if (number := shortage(error)) is not None:
                raise MissingExtension(
                    what, where=spec.name, errno=number, hint=remedy_for(number)
                ) from error
            raise _missing(spec.name, what) from error


class _Finder:
    """Finds parts as Python does, and explains why one cannot be found."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        home, _, last = name.partition(".")
        if home not in ("rpmem", "rpmemd"):
            return None
        last = last.rpartition(".")[2]
        spec = PathFinder.find_spec(name, path, target)
        if spec is None:
            # Every installation has the .pyi of a part, but perhaps not the part itself.
            if any(os.path.exists(os.path.join(each, f"{last}.pyi")) for each in path or ()):
                raise _missing(name, "this part of rpmem was not built, or not for this Python")
        elif isinstance(spec.loader, ExtensionFileLoader):
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


def install() -> None:
    """Use this finder for the parts from now on."""
    if _Finder not in sys.meta_path:
        sys.meta_path.insert(0, _Finder)


def is_there(name: str) -> bool:
    """Whether a part can be used; it is imported."""
    try:
        importlib.import_module(name)
    except MissingExtension:
        return False
    return True
