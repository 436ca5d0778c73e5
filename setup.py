"""Build the compiled parts; everything else about the project stands in pyproject.toml.

No part is linked with anything but libc: libraries are opened when they are first used, and their
headers are in third_party. So every part is built everywhere, and nothing has to be installed
before but a compiler and Python's headers. ``RPMEM_EXT=rpmem.memory.region,rpmem._core`` builds
only those; empty builds none.

What stops every part in the same way is said once, before any of them is tried, and ends with
exit status 3.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
import sysconfig
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any, NoReturn

from setuptools import Extension, setup
from setuptools.command.build import build
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
CANNOT_BUILD = 3


# Where the headers of the libraries are; those of the project are included by whole paths.
HEADERS = [".", *map(str, sorted(Path("third_party").glob("*/include")))]

# What rpmem.fabric.libfabric.startup loads in place of libraries: name, the library's name, more
# for the linker.
PSM2_SYMBOLS = "rpmem/fabric/libfabric/no_psm2_symbols.map"
STAND_INS: tuple[tuple[str, str, list[str]], ...] = (
    ("no_psm", "libpsm_infinipath.so.1", []),
    ("no_psm2", "libpsm2.so.2", [f"-Wl,--version-script={PSM2_SYMBOLS}"]),
)

# Compiled parts that include numpy's headers, and which of its functions these show.
WITH_NUMPY = ("rpmem.memkind.kinds",)
NUMPY = [("NPY_TARGET_VERSION", "NPY_2_0_API_VERSION")]

# The hot path checks its ranges itself, once, before it drops the GIL.
DIRECTIVES = {
    "language_level": 3,
    "boundscheck": False,
    "wraparound": False,
    "initializedcheck": False,
    "cdivision": True,
    "embedsignature": True,
    "embedsignature.format": "clinic",
    # So methods look what their self is, which Cython's own functions do not.
    "binding": False,
}
# Debug information, which Python's own flags ask for, would be two fifths of a build's time and
# four fifths of what is built; the debug build has it.
COMPILE = ["-O3", "-g0", "-std=gnu11", "-fvisibility=hidden", "-Wall", "-Wno-unused-function"]
LINK: list[str] = []

# Only in the copy of the tree that scripts/debug makes: what is built there checks itself.
DEBUG = ROOT / "debug-build"
if DEBUG.exists():
    DIRECTIVES |= {"boundscheck": True, "initializedcheck": True}
    COMPILE += DEBUG.read_text().split()
    LINK += DEBUG.read_text().split()


def say(message: str) -> None:
    """Print where a person sees it also under pip -v."""
    print(f"setup.py: {message}", file=sys.stderr, flush=True)


def stop(message: str) -> NoReturn:
    """End because no part can be built here."""
    say(message)
    sys.exit(CANNOT_BUILD)


def numbers(version: str) -> tuple[int, ...]:
    """Return a version so that it can be compared."""
    return tuple(map(int, re.findall(r"\d+", version)[:3]))


def check_requirements() -> None:
    """Compare what is installed with what pyproject.toml wants of it."""
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    for requirement in wanted:
        name = re.match(r"[\w-]+", requirement)[0]  # type: ignore[index]
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            version = ""
        found = numbers(version)
        lowest = re.search(r">=([\d.]+)", requirement)
        limit = re.search(r"<([\d.]+)", requirement)
        if (
            not found
            or (lowest and found < numbers(lowest[1]))
            or (limit and found >= numbers(limit[1]))
        ):
            stop(
                f"{requirement} is needed to build rpmem, and {sys.executable} has "
                f"{version or 'none'}: make setup, or pip install '{requirement}'"
            )


def check_compiler() -> None:
    """Look for what every part is compiled with."""
    command = os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc"
    compiler = shlex.split(command)[0]
    if shutil.which(compiler) is None:
        stop(f"there is no C compiler {compiler}: make setup, or install gcc and libc6-dev")
    header = Path(sysconfig.get_path("include"), "Python.h")
    if not header.exists():
        stop(f"there is no {header}: make setup, or install libpython3-dev")


def cores() -> int:
    """Return how many parts are compiled at once."""
    return min(len(os.sched_getaffinity(0)), 8)


def stand_ins() -> list[Extension]:
    """Return what startup loads in place of the PSM libraries, where libfabric wants them."""
    return [
        Extension(
            f"rpmem.fabric.libfabric.{name}",
            [f"rpmem/fabric/libfabric/{name}.c"],
            depends=["rpmem/fabric/libfabric/no_psm.h", PSM2_SYMBOLS],
            extra_compile_args=COMPILE,
            extra_link_args=[f"-Wl,-soname,{soname}", *options, *LINK],
        )
        for name, soname, options in STAND_INS
    ]


def include_dirs(name: str) -> list[str]:
    """Return where a part finds its headers."""
    if name not in WITH_NUMPY:
        return HEADERS
    import numpy

    return [*HEADERS, numpy.get_include()]


def extension(name: str, source: Path) -> Extension:
    """Describe one compiled part to setuptools."""
    return Extension(
        name,
        [str(source)],
        include_dirs=include_dirs(name),
        define_macros=NUMPY if name in WITH_NUMPY else [],
        depends=sorted(map(str, [*source.parent.glob("*.h"), Path("rpmem/base/library.h")])),
        extra_compile_args=COMPILE,
        extra_link_args=LINK,
    )


def all_sources() -> dict[str, Path]:
    """Return every part that there is, by name."""
    return {
        ".".join(path.with_suffix("").parts): path
        for package in ("rpmem", "rpmemd")
        for path in sorted(Path(package).glob("**/*.pyx"))
    }


def chosen() -> list[str]:
    """Return the names of the parts that RPMEM_EXT asks for."""
    names = list(all_sources())
    wanted = os.environ.get("RPMEM_EXT")
    if wanted is None:
        return names
    unknown = set(wanted.replace(",", " ").split()) - set(names)
    if unknown:
        raise SystemExit(f"setup.py: no source for {', '.join(sorted(unknown))}")
    return wanted.replace(",", " ").split()


def extensions() -> list[Extension]:
    """Return what is to be built here."""
    sources = all_sources()
    modules = [extension(name, sources[name]) for name in chosen()]
    return modules + (stand_ins() if "rpmem.fabric.libfabric.load" in chosen() else [])


class BuildParts(build_ext):
    """Compile several parts at a time, each translated to C where its source has changed."""

    def finalize_options(self) -> None:
        """Use every core unless told otherwise."""
        super().finalize_options()
        if self.parallel is None:
            self.parallel = cores()

    def run(self) -> None:
        """Translate and compile."""
        if self.extensions:
            check_compiler()
            self.translate()
        super().run()

    def translate(self) -> None:
        """Have Cython write build/cython; only here, since a source archive needs none of it."""
        from Cython.Build import cythonize

        # Cython looks at the sources only, and setup.py says how they are translated.
        for made in Path("build/cython").rglob("*.c"):
            if made.stat().st_mtime < (ROOT / "setup.py").stat().st_mtime:
                made.unlink()
        translated = cythonize(
            [part for part in self.extensions if part.sources[0].endswith(".pyx")],
            build_dir="build/cython",
            compiler_directives=DIRECTIVES,
            nthreads=cores(),
            force=self.force,
            quiet=True,
            emit_linenums=DEBUG.exists(),
        )
        results: dict[str, Any] = {part.name: part for part in translated}
        for part in self.extensions:
            if part.name in results:
                part.sources = results[part.name].sources
                part.depends = results[part.name].depends


class Build(build):
    """Build, and leave nothing in the build folder that was built at another time.

    The wheel takes the whole folder: modules that have another name now, and parts that were
    not asked for this time, would be in it.
    """

    def run(self) -> None:
        """Build, then remove what does not belong."""
        super().run()
        belongs = {
            Path(output).resolve()
            for name in self.get_sub_commands()
            for output in self.get_finalized_command(name).get_outputs()
        }
        for path in Path(self.build_lib).rglob("*"):
            if not path.is_dir() and path.resolve() not in belongs:
                say(f"removed from the build folder, left over: {path}")
                path.unlink()


if __name__ == "__main__":
    os.chdir(ROOT)
    check_requirements()
    setup(ext_modules=extensions(), cmdclass={"build": Build, "build_ext": BuildParts})
