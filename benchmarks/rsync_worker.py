"""A file, a copy of it, and rsync between them after every change."""

from __future__ import annotations

import argparse
import os
import subprocess
from pathlib import Path

from benchmarks.jobs import Call, Order, serve_calls


def main() -> None:
    """Take jobs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("place", type=Path)
    parser.add_argument("pool", type=int)
    options = parser.parse_args()
    source, copy = options.place / "source", options.place / "copy"
    source.write_bytes(os.urandom(options.pool))
    turn = 0

    def sync(size: int) -> None:
        nonlocal turn
        turn += 1
        with source.open("r+b") as stream:
            stream.write(bytes([turn & 0xFF]) * size)
        # The delta algorithm, as between machines; modification times are too coarse here.
        command = ["rsync", "--inplace", "--no-whole-file", "--ignore-times", "-q", source, copy]
        subprocess.run(command, check=True)

    sync(1)

    def calls(order: Order) -> list[Call]:
        return [(sync, [(order.size,)])]

    serve_calls({"connected": 1}, calls)


if __name__ == "__main__":
    main()
