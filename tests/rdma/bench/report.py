"""What the bench says while it works."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

_BEGUN = time.monotonic()
_thread = threading.local()


class BenchError(Exception):
    """Something around the guest went wrong."""


class Unavailable(BenchError):
    """This machine cannot have the bench; the text says why."""


@contextlib.contextmanager
def labelled(name: str) -> Iterator[None]:
    """Put a name before each line that this thread prints: another one works beside it."""
    _thread.label = f"{name:8} | "
    try:
        yield
    finally:
        _thread.label = ""


def show(line: str) -> None:
    """Print a line that something else said."""
    # In one piece, with its end: lines of two threads do not mix.
    print(f"{getattr(_thread, 'label', '')}{line}\n", end="", flush=True)


def say(text: str) -> None:
    """Print one line with the time since the start."""
    show(f"bench: [{time.monotonic() - _BEGUN:6.1f} s] {text}")


@contextlib.contextmanager
def step(name: str) -> Iterator[None]:
    """Say what is done now, and how long it took."""
    say(f"{name} ...")
    begun = time.monotonic()
    try:
        yield
    except BaseException as error:
        reason = f": {error}" if isinstance(error, BenchError) else ""
        say(f"{name}: failed after {time.monotonic() - begun:.1f} s{reason}")
        raise
    say(f"{name}: done in {time.monotonic() - begun:.1f} s")


def complaint(output: str) -> str:
    """Return the lines of a failed command's output that say most."""
    lines = [line for line in output.splitlines() if line.strip()]
    telling = [line for line in lines if line.startswith(("E:", "Err:", "error:"))]
    return "; ".join(telling[:3] or lines[-3:]) or "it said nothing"
