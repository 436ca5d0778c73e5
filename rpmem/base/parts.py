"""The compiled parts of rpmem, and the error for a part that is missing or cannot be loaded.

Parts are imported by name, from Python and by each other. If one was not built, every such import
ends here and raises `MissingExtension`. No part is linked with a library: `rpmem.base.libraries`
opens them.
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

__all__ = ["install", "is_there"]

_HINT = (
    "Run `make build` in a source tree, else `pip install --force-reinstall --no-cache-dir rpmem`"
)


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
            raise MissingExtension(what, where=spec.name, hint=_HINT) from error


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
                raise MissingExtension(
                    "this part of rpmem was not built, or not for this Python",
                    where=name,
                    hint=_HINT,
                )
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
