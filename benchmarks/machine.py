"""The machine of the measurements, and its other work during them."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_TICKS = os.sysconf("SC_CLK_TCK")


def _words(*command: str) -> str:
    if shutil.which(command[0]) is None:
        return ""
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    return result.stdout.strip()


def _text(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _field(text: str, name: str) -> str:
    found = re.search(rf"^{name}\s*:\s*(.*)$", text, re.MULTILINE)
    return found[1] if found else ""


def describe() -> dict[str, Any]:
    """Return the machine, the system and the versions that matter, for the report."""
    cpu = _text("/proc/cpuinfo")
    release = dict(
        line.split("=", 1) for line in _text("/etc/os-release").splitlines() if "=" in line
    )
    flags = set(_field(cpu, "flags").split())
    return {
        "cpu": _field(cpu, "model name"),
        "cores": len(os.sched_getaffinity(0)),
        "virtual": "hypervisor" in flags,
        "flush": [name for name in ("clflushopt", "clwb", "movdir64b") if name in flags],
        "memory": _field(_text("/proc/meminfo"), "MemTotal"),
        "system": release.get("PRETTY_NAME", "").strip('"'),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "libfabric": _words("pkg-config", "--modversion", "libfabric"),
        "libpmem2": _words("pkg-config", "--modversion", "libpmem2"),
        "compiler": _words("cc", "--version").partition("\n")[0],
        "congestion_control": _text("/proc/sys/net/ipv4/tcp_congestion_control"),
        "busy_poll": _text("/proc/sys/net/core/busy_poll"),
        "governor": _text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor") or "unknown",
        "verbs_devices": sorted(entry.name for entry in Path("/sys/class/infiniband").glob("*")),
        "commit": _words("git", "rev-parse", "--short", "HEAD"),
    }


def processor_seconds(pids: Iterable[int]) -> float:
    """Return the CPU time so far of these processes and the children they have waited for."""
    ticks = 0
    for pid in pids:
        fields = _text(f"/proc/{pid}/stat").rpartition(")")[2].split()
        if fields:
            ticks += sum(map(int, fields[11:15]))
    return ticks / _TICKS


def descendants(pids: Iterable[int]) -> set[int]:
    """Return these processes and all their descendants."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            fields = _text(f"{entry}/stat").rpartition(")")[2].split()
            if fields:
                parents[int(entry.name)] = int(fields[1])
    family = set(pids)
    while True:
        more = {child for child, parent in parents.items() if parent in family} - family
        if not more:
            return family
        family |= more


class ProcessorClock:
    """The processor time of this process and its descendants, of which there are no new ones."""

    def __init__(self) -> None:
        # pid_t to clockid_t, as clock_getcpuclockid does it
        self._clocks = [~pid << 3 | 2 for pid in descendants([os.getpid()])]
        self._begun = 0

    def start(self) -> None:
        """Begin to count."""
        self._begun = self._now()

    def taken(self) -> int:
        """Return the nanoseconds since `start`."""
        return self._now() - self._begun

    def _now(self) -> int:
        return sum(map(time.clock_gettime_ns, self._clocks))


def scheduled(pids: Iterable[int]) -> tuple[int, int]:
    """Return how long the threads of these processes ran, and waited for a processor, in ns."""
    ran = waited = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").glob("*"):
            fields = _text(f"{task}/schedstat").split()
            if len(fields) > 1:
                ran += int(fields[0])
                waited += int(fields[1])
    return ran, waited


class ForeignLoad:
    """How busy the processors were with other work while the benchmark ran.

    Used as ``with ForeignLoad(pids) as load: ...``, then `report`.
    """

    def __init__(self, pids: Iterable[int]) -> None:
        self._pids = [os.getpid(), *pids]

    def __enter__(self) -> ForeignLoad:
        self._family = descendants(self._pids)
        self._begin = self._now()
        return self

    def _now(self) -> tuple[float, float, float, float]:
        fields = list(map(int, _text("/proc/stat").partition("\n")[0].split()[1:9]))
        busy = sum(fields) - fields[3] - fields[4] - fields[7]
        return (
            time.monotonic(),
            busy / _TICKS,
            fields[7] / _TICKS,
            processor_seconds(self._family),
        )

    def __exit__(self, *_: object) -> None:
        self._family |= descendants(self._pids)
        self._end = self._now()

    def report(self) -> dict[str, Any]:
        """Return shares of all processors: foreign work, and time stolen by the hypervisor."""
        wall, busy, stolen, own = (b - a for a, b in zip(self._begin, self._end, strict=True))
        capacity = max(wall * (os.cpu_count() or 1), 1e-9)
        return {
            "foreign": round(max(busy - own, 0.0) / capacity, 3),
            "stolen": round(stolen / capacity, 3),
            "loadavg": os.getloadavg()[0],
        }
