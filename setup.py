"""Build the compiled parts; everything else about the project stands in pyproject.toml.

An extension is left out, with a message, when a library it needs is not found by pkg-config.
``RPMEM_WITH_<LIBRARY>=0`` leaves it out although the library is there, ``=1`` makes a missing
library an error. ``RPMEM_EXT=rpmem._pmem,rpmem._core`` builds only those; empty builds none.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup

ROOT = Path(__file__).resolve().parent


# pkg-config names of the libraries that a compiled part needs; every other .pyx needs none.
LIBRARIES = {
    "rpmem._media": ("libpmem2",),
    "rpmem._pmem": ("libpmem2",),
    "rpmem._fi_ops": ("libfabric",),
    "rpmem._libfabric": ("libfabric",),
    "rpmem._verbs": ("libibverbs", "librdmacm"),
    "rpmem._verbs_memory": ("libibverbs", "librdmacm"),
    "rpmem._verbs_queue": ("libibverbs", "librdmacm"),
    "rpmem._verbs_probe": ("libibverbs", "librdmacm"),
    "rpmem._pyverbs": ("libibverbs", "librdmacm"),
    "rpmem._memkind": ("memkind",),
}

# Compiled parts that include numpy's headers.
WITH_NUMPY = ("rpmem._memkind",)

# The hot path checks its ranges itself, once, before it drops the GIL.
DIRECTIVES = {
    "language_level": 3,
    "boundscheck": False,
    "wraparound": False,
    "initializedcheck": False,
    "cdivision": True,
    "embedsignature": True,
}
COMPILE = ["-O3", "-std=gnu11", "-fvisibility=hidden", "-Wall", "-Wno-unused-function"]


def say(message: str) -> None:
    """Print where a person sees it also under pip -v."""
    print(f"setup.py: {message}", file=sys.stderr, flush=True)


def pkg_config(option: str, library: str) -> list[str] | None:
    """Ask pkg-config; None when it or the library is missing."""
    command = shlex.split(os.environ.get("PKG_CONFIG", "pkg-config"))
    try:
        found = subprocess.run([*command, option, library], capture_output=True, text=True)
    except FileNotFoundError:
        return None
    return shlex.split(found.stdout) if found.returncode == 0 else None


def flags_of(name: str) -> tuple[list[str], list[str]] | None:
    """Compiler and linker flags of a part, or None when it has to be left out."""
    compile_flags: list[str] = []
    link_flags: list[str] = []
    for library in LIBRARIES.get(name, ()):
        variable = "RPMEM_WITH_" + library.upper()
        wanted = os.environ.get(variable, "")
        if wanted == "0":
            say(f"{name} is left out: {variable}=0")
            return None
        cflags, libs = pkg_config("--cflags", library), pkg_config("--libs", library)
        if cflags is None or libs is None:
            if wanted == "1":
                raise SystemExit(f"setup.py: {variable}=1, but pkg-config does not find {library}")
            say(f"{name} is left out: pkg-config does not find {library}")
            return None
        compile_flags += cflags
        link_flags += libs
        if library == "libibverbs":
            # 1.14.VERSION: the headers themselves do not say which rdma-core they are of.
            version = (pkg_config("--modversion", library) or ["0"])[0].split(".")
            compile_flags.append(f"-DRPMEM_RDMA_CORE={version[2] if len(version) > 2 else 0}")
    return compile_flags, link_flags


def stand_ins() -> list[Extension]:
    """Return what rpmem.fabric loads in place of the PSM libraries, if libfabric wants them."""
    found = pkg_config("--variable=libdir", "libfabric")
    library = Path(found[0] if found else "/nowhere", "libfabric.so")
    wanted = library.read_bytes() if library.exists() else b""
    script = "rpmem/fabric/no_psm2.map"
    return [
        Extension(
            f"rpmem.fabric.{name}",
            [f"rpmem/fabric/{name}.c"],
            depends=["rpmem/fabric/_no_psm.h", script],
            extra_compile_args=COMPILE,
            extra_link_args=[f"-Wl,-soname,{soname}", *options],
        )
        for name, soname, options in (
            ("_no_psm", "libpsm_infinipath.so.1", []),
            ("_no_psm2", "libpsm2.so.2", [f"-Wl,--version-script={script}"]),
        )
        if soname.encode() in wanted
    ]


def include_dirs(name: str, source: Path) -> list[str]:
    """Return where a part finds its headers."""
    if name not in WITH_NUMPY:
        return [str(source.parent)]
    import numpy

    return [str(source.parent), numpy.get_include()]


def extension(name: str, source: Path) -> Extension | None:
    """Describe one compiled part to setuptools, or None when it has to be left out."""
    flags = flags_of(name)
    if flags is None:
        return None
    return Extension(
        name,
        [str(source)],
        include_dirs=include_dirs(name, source),
        depends=[str(header) for header in sorted(source.parent.glob("*.h"))],
        extra_compile_args=COMPILE + flags[0],
        extra_link_args=flags[1],
    )


def extensions() -> list[Extension]:
    """Return what is to be built here, translated to C where the source has changed."""
    sources = {
        ".".join(path.with_suffix("").parts): path
        for package in ("rpmem", "rpmemd")
        for path in sorted(Path(package).glob("**/*.pyx"))
    }
    wanted = os.environ.get("RPMEM_EXT")
    names = list(sources) if wanted is None else wanted.replace(",", " ").split()
    unknown = set(names) - set(sources)
    if unknown:
        raise SystemExit(f"setup.py: no source for {', '.join(sorted(unknown))}")
    found = [extension(name, sources[name]) for name in names]
    modules = [module for module in found if module is not None]
    if not modules:
        return []
    from Cython.Build import cythonize

    built = cythonize(modules, build_dir="build/cython", compiler_directives=DIRECTIVES)
    return built + (stand_ins() if "rpmem.fabric._load" in names else [])


if __name__ == "__main__":
    os.chdir(ROOT)
    setup(ext_modules=extensions())
