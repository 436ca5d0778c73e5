"""A pair of perftest's programs for every job; the samples are the output of -U.

ib_write_lat reports half a round trip of WRITEs back and forth, ib_read_lat a whole READ.
"""

from __future__ import annotations

import argparse
import re
import shlex
import socket
import subprocess
import sys
import time
from array import array
from collections.abc import Sequence

from benchmarks.jobs import Order, Timed, serve

_PROGRAMS = {"write-lat": "ib_write_lat", "read-lat": "ib_read_lat"}
_PATIENCE = 60.0
_AGAIN = 0.3


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _asked(words: Sequence[str], server: subprocess.Popen[bytes]) -> str:
    """Run the client, again until the server is ready, and return its output."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        time.sleep(_AGAIN)
        shown = subprocess.run(
            words, capture_output=True, text=True, check=False, timeout=_PATIENCE
        )
        if shown.returncode == 0:
            return shown.stdout
        if server.poll() is not None or time.monotonic() > deadline:
            sys.exit(f"{words}: {shown.stdout[-300:]} {shown.stderr[-300:]}")


def main() -> None:
    """Take jobs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", help="the server's; without it RDMA-CM finds the way")
    parser.add_argument("--address", default="127.0.0.1", help="where the server is")
    parser.add_argument("--server", default="", help="words before the server's program")
    parser.add_argument("--client", default="", help="words before the client's program")
    options = parser.parse_args()

    def handle(order: Order) -> tuple[array, int]:
        count = max(order.count + order.warmup, 5)
        words = [_PROGRAMS[order.op], "-F", "-s", str(order.size), "-n", str(count), "-U"]
        words += ["-d", options.device] if options.device else ["-R"]
        words += ["-p", str(_free_port())]
        server = subprocess.Popen([*shlex.split(options.server), *words], stdout=subprocess.DEVNULL)
        begun = time.perf_counter_ns()
        try:
            shown = _asked([*shlex.split(options.client), *words, options.address], server)
            wall = time.perf_counter_ns() - begun
            server.wait(10)
        finally:
            server.kill()
            server.wait()
        lines = re.findall(r"^\s*\d+,\s*([0-9.]+)\s*$", shown, re.MULTILINE)
        samples = array("Q", (int(float(word) * 1000) for word in lines[order.warmup :]))
        return Timed(samples, wall)

    serve({"device": options.device}, handle)


if __name__ == "__main__":
    main()
