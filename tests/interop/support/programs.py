"""Small C programs of the tests that need none of the originals: built when first asked for."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.interop.support.originals import PROJECT, SOURCES, quick_start

_LIBRARIES = {"lane_client": ["libfabric"], "failing_msync": []}


def program(name: str) -> Path:
    """Return a program's path; skips where it cannot be built."""
    source = SOURCES / f"{name}.c"
    built = PROJECT / "build" / "interop" / name
    if built.exists() and built.stat().st_mtime > source.stat().st_mtime:
        return built
    compiler = shlex.split(os.environ.get("CC", "cc"))
    if shutil.which(compiler[0]) is None:
        pytest.skip(f"{name} needs a C compiler")
    flags: list[str] = []
    for library in _LIBRARIES[name]:
        found = subprocess.run(
            ["pkg-config", "--cflags", "--libs", library], capture_output=True, text=True
        )
        if found.returncode:
            pytest.skip(f"{name} needs the development files of {library}")
        flags += found.stdout.split()
    built.parent.mkdir(parents=True, exist_ok=True)
    # Under a name of its own first: other tests may be looking for it at the same time.
    made = built.with_suffix(f".{os.getpid()}")
    subprocess.run(
        [*compiler, "-O1", "-g", "-Wall", "-Wextra", "-o", str(made), str(source), *flags],
        check=True,
    )
    made.replace(built)
    return built


class LaneClient:
    """Raw lanes to a daemon: see lane_client.c."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [program("lane_client")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "LD_PRELOAD": quick_start()},
        )

    def ask(self, *words: object) -> str:
        """Give a command and return its answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def connect(self, port: int, lanes: int = 1, provider: str = "sockets") -> None:
        """Connect lanes and post a receive for a reply on each."""
        answer = self.ask("connect", provider, "127.0.0.1", port, lanes)
        if answer.startswith("failed fi_getinfo"):
            pytest.skip(f"libfabric has no provider {provider} here")
        assert answer == "connected", answer
        for lane in range(lanes):
            assert self.ask("receive", lane, 64) == "posted"

    def exchange(self, lane: int, message: bytes, timeout: int = 5000) -> str:
        """Send a message and return what comes back."""
        assert self.ask("send", lane, message.hex() or "-") == "sent"
        return self.ask("await", lane, timeout)

    def end(self) -> None:
        """Disconnect by ending."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()
