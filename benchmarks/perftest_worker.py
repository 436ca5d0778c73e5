"""A pair of ib_write_lat for every job; its samples, as -U prints them."""

from __future__ import annotations

import argparse
import re
import socket
import subprocess
import time
from array import array

from benchmarks.jobs import Order, serve


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main() -> None:
    """Take jobs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("device")
    device = parser.parse_args().device

    def handle(order: Order) -> tuple[array, int]:
        count = max(order.count + order.warmup, 5)
        words = ["ib_write_lat", "-d", device, "-s", str(order.size), "-n", str(count), "-U"]
        words += ["-p", str(_free_port())]
        server = subprocess.Popen(words, stdout=subprocess.DEVNULL)
        time.sleep(0.3)
        begun = time.perf_counter_ns()
        shown = subprocess.run(
            [*words, "127.0.0.1"], capture_output=True, text=True, check=True, timeout=60
        )
        wall = time.perf_counter_ns() - begun
        server.wait(10)
        lines = re.findall(r"^\s*\d+,\s*([0-9.]+)\s*$", shown.stdout, re.MULTILINE)
        samples = array("Q", (int(float(word) * 1000) for word in lines[order.warmup :]))
        return samples, wall

    serve({"device": device}, handle)


if __name__ == "__main__":
    main()
