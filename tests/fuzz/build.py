"""The copy of the tree that clang compiles for libFuzzer, and the process in which it runs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.debug.tree import NotHere, mirror

#: Only what an input reaches is instrumented.
PARTS = (
    "rpmem.base.library",
    "rpmem.wire.lane",
    *(
        f"rpmem.fabric.stream.{name}"
        for name in ("handshake", "keyring", "arrivals", "ops", "posts", "tls", "transport")
    ),
)
#: gcc's warnings that clang does not know, and Python's own options, are taken back.
FLAGS = (
    *("-O1", "-g", "-fno-omit-frame-pointer", "-fsanitize=fuzzer-no-link,address,undefined"),
    *("-fno-sanitize-recover=undefined", "-shared-libasan", "-fno-wrapv", "-UNDEBUG"),
    "-Wno-unknown-warning-option",
)
_DRIVER = "driver.so"
_ASAN = {
    # The interpreter frees little of what it has when it ends; libFuzzer looks for leaks itself.
    "detect_leaks": 0,
    "verify_asan_link_order": 0,
    "handle_segv": 2,
    "handle_sigbus": 2,
    "detect_stack_use_after_return": 1,
    "quarantine_size_mb": 16,
}


def runtime(name: str) -> Path:
    """Return a library of clang's; raise `NotHere` without clang or without it."""
    if shutil.which("clang") is None:
        raise NotHere("this needs clang")
    command = ["clang", f"-print-file-name=libclang_rt.{name}"]
    found = Path(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip())
    # Without the library clang gives the name back as it came.
    if not found.is_absolute():
        raise NotHere(f"clang has no libclang_rt.{name} here (on Debian: libclang-rt-dev)")
    return found.resolve()


def is_here() -> bool:
    """Say whether clang and the libraries are installed."""
    try:
        _libraries()
    except NotHere:
        return False
    return True


def build(root: Path, copy: Path) -> None:
    """Bring the copy up to date, and compile what is to be instrumented."""
    _, fuzzer = _libraries()
    mirror(root, copy, FLAGS)
    clang = {**os.environ, "CC": "clang", "PYTHONPATH": str(copy), "RPMEM_EXT": " ".join(PARTS)}
    for words in (
        ["setup.py", "--quiet", "build_ext", "--inplace"],
        ["-c", "from tests.support.compiled import build; build('_fuzzed_stream')"],
    ):
        subprocess.run([sys.executable, *words], cwd=copy, env=clang, check=True)
    driver = copy / "build" / _DRIVER
    if not driver.exists():
        # Its main program is Python's, so libFuzzer has to be there before all else.
        whole = ["-Wl,--whole-archive", str(fuzzer), "-Wl,--no-whole-archive"]
        command = ["clang", "-shared", *whole, "-lstdc++", "-lm", "-lpthread", "-ldl"]
        subprocess.run([*command, "-o", str(driver)], check=True)


def environment(copy: Path) -> dict[str, str]:
    """Return the variables with which Python can run what was built."""
    asan, _ = _libraries()
    return {
        **os.environ,
        # The sanitizer has functions of the same names that do nothing.
        "LD_PRELOAD": f"{copy / 'build' / _DRIVER}:{asan}",
        "PYTHONMALLOC": "malloc",
        "PYTHONPATH": str(copy),
        "ASAN_OPTIONS": ":".join(f"{name}={value}" for name, value in _ASAN.items()),
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }


def _libraries() -> tuple[Path, Path]:
    machine = os.uname().machine
    return runtime(f"asan-{machine}.so"), runtime(f"fuzzer_no_main-{machine}.a")
