"""The copy of the tree: its files, its interpreter, what is compiled in it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

#: In the root of the copy: what every compiled part is to be built with. setup.py and the tests'
#: own compiled helpers look for it beside themselves.
MARK = "debug-build"
#: Python's own -fwrapv and -DNDEBUG, which would hide what is sought, are taken back.
FLAGS = [
    *("-O1", "-g", "-fno-omit-frame-pointer", "-fsanitize=address,undefined"),
    *("-fno-wrapv", "-UNDEBUG", "-Wno-maybe-uninitialized"),
]
_NEVER_COPIED = {
    *(".git", ".venv", ".hypothesis", ".mypy_cache", ".pytest_cache", ".ruff_cache"),
    *("build", "dist", "__pycache__"),
}

_ASAN = {
    # The interpreter frees little of what it has when it ends.
    "detect_leaks": 0,
    # The tests ask for more memory than there is, and want a MemoryError.
    "allocator_may_return_null": 1,
    # Processes that catch the signal, as with -X faulthandler, would report nothing.
    "handle_segv": 2,
    "handle_sigbus": 2,
    "detect_stack_use_after_return": 1,
    # Many processes at once, each with memory that was freed and is kept back.
    "quarantine_size_mb": 64,
    "malloc_context_size": 12,
}
_UBSAN = {"print_stacktrace": 1}

_PYTHON = """\
#!/bin/bash
# The interpreter of the debug build: the sanitizers' runtimes are loaded before all else.
export ASAN_OPTIONS={asan} UBSAN_OPTIONS={ubsan} DEBUG_REPORTS_UBSAN={reports}/ubsan
export PYTHONMALLOC=malloc LD_PRELOAD={preloaded}${{LD_PRELOAD:+:$LD_PRELOAD}}
exec -a {itself} {python} "$@"
"""

# Other programs, such as ssh and gcc, run without the runtimes.
_START = """\
import os
_kept = os.environ.pop("LD_PRELOAD").removeprefix({preloaded!r}).lstrip(":")
if _kept:
    os.environ["LD_PRELOAD"] = _kept
"""


class NotHere(Exception):
    """What the debug build needs is missing."""


def runtime(name: str) -> Path:
    """Return gcc's shared library of a sanitizer; raise `NotHere` without gcc or without it."""
    if shutil.which("gcc") is None:
        raise NotHere("the debug build needs gcc")
    found = subprocess.run(
        ["gcc", f"-print-file-name=lib{name}.so"], capture_output=True, text=True, check=True
    )
    # Without the library gcc gives the name back as it came.
    path = Path(found.stdout.strip())
    if not path.is_absolute():
        raise NotHere(f"gcc has no lib{name} here")
    return path.resolve()


def mirror(source: Path, copy: Path, flags: Sequence[str] = FLAGS) -> None:
    """Make the copy's files those of the source, and leave alone what was built from them.

    What was built from a file that is gone goes too, and so does everything when the flags changed.
    """
    mark = copy / MARK
    if not mark.exists() or mark.read_text().split() != list(flags):
        shutil.rmtree(copy, ignore_errors=True)
        copy.mkdir(parents=True)
        mark.write_text(" ".join(flags) + "\n")
    wanted = _files(source)
    for path in _files(copy) - wanted - {Path(MARK)}:
        (copy / path).unlink()
    for path in wanted:
        ours, theirs = copy / path, source / path
        if not ours.exists() or ours.stat().st_mtime_ns != theirs.stat().st_mtime_ns:
            ours.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(theirs, ours, follow_symlinks=False)
    for built in copy.rglob("*.so"):
        name = built.name.partition(".")[0]
        if "build" not in built.parts[len(copy.parts) :] and not any(
            built.with_name(name + suffix).exists() for suffix in (".pyx", ".c")
        ):
            built.unlink()


def _files(tree: Path) -> set[Path]:
    """Return the files of a tree, without those that are built."""
    found = set()
    for folder, folders, names in os.walk(tree):
        folders[:] = [name for name in folders if name not in _NEVER_COPIED]
        found |= {Path(folder, name).relative_to(tree) for name in names if name[-3:] != ".so"}
    return found


def interpreter(copy: Path, reports: Path) -> Path:
    """Make the copy's ``.venv``; return its interpreter, which reports into a folder."""
    preloaded = f"{runtime('asan')}:{_reporter(copy)}"
    python = copy / ".venv" / "bin" / "python"
    packages = copy / ".venv" / "lib" / Path(*_packages().parts[-2:])
    python.parent.mkdir(parents=True, exist_ok=True)
    packages.mkdir(parents=True, exist_ok=True)
    (copy / ".venv" / "pyvenv.cfg").write_text((Path(sys.prefix) / "pyvenv.cfg").read_text())
    # A path entry is not searched for further .pth files: the working tree stays out of it.
    (packages / "debug.pth").write_text(f"{copy}\n{_packages()}\nimport debug_start\n")
    (packages / "debug_start.py").write_text(_START.format(preloaded=preloaded))
    text = _PYTHON.format(
        asan=_options(_ASAN | {"log_path": reports / "asan"}),
        ubsan=_options(_UBSAN | {"log_path": reports / "asan"}),
        reports=reports,
        preloaded=preloaded,
        itself=python,
        python=Path(sys.executable).resolve(),
    )
    python.write_text(text)
    python.chmod(0o755)
    for name in ("rpmem", "rpmemd"):
        theirs = Path(sys.executable).with_name(name)
        if theirs.exists():
            ours = python.with_name(name)
            ours.write_text(theirs.read_text().replace(sys.executable, str(python), 1))
            ours.chmod(0o755)
    return python


def _reporter(copy: Path) -> Path:
    """Compile what sends the second runtime's reports to files."""
    library, made = runtime("ubsan"), copy / "build" / "reports.so"
    made.parent.mkdir(exist_ok=True)
    command = ["gcc", "-shared", "-fPIC", "-O1", "-Wall", f'-DUBSAN="{library}"', "-o", str(made)]
    source = str(Path(__file__).with_name("reports.c"))
    subprocess.run([*command, source, "-Wl,--no-as-needed", str(library)], check=True)
    return made


def _packages() -> Path:
    """Return the folder of the packages that are installed in this ``.venv``."""
    return Path(
        sys.prefix, "lib", f"python{sys.version_info[0]}.{sys.version_info[1]}", "site-packages"
    )


def _options(options: dict[str, object]) -> str:
    return ":".join(f"{name}={value}" for name, value in options.items())


def compile_all(copy: Path) -> None:
    """Build every part in the copy; the compiler and Cython themselves run without sanitizers."""
    environment = {**os.environ, "PYTHONPATH": str(copy)}
    for words in (
        ["setup.py", "--quiet", "build_ext", "--inplace"],
        ["-m", "tests.support.compiled"],
    ):
        subprocess.run([sys.executable, *words], cwd=copy, env=environment, check=True)
