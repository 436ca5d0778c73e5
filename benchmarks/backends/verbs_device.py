"""The verbs device of this machine, and the address to reach it."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

_DEVICES = Path("/sys/class/infiniband")


def device() -> str | None:
    """Return the first verbs device."""
    return next((entry.name for entry in sorted(_DEVICES.glob("*"))), None)


def address() -> str | None:
    """Return an IPv4 address of the network interface of the first verbs device."""
    name = device()
    if name is None or shutil.which("ip") is None:
        return None
    # soft-RoCE names its interface in a file; hardware has a folder for each
    try:
        interfaces = [(_DEVICES / name / "parent").read_text().strip()]
    except OSError:
        interfaces = [entry.name for entry in (_DEVICES / name / "device" / "net").glob("*")]
    for interface in interfaces:
        shown = subprocess.run(
            ["ip", "-j", "-4", "address", "show", "dev", interface],
            capture_output=True,
            text=True,
            check=False,
        )
        for link in json.loads(shown.stdout or "[]"):
            for entry in link.get("addr_info", []):
                return str(entry["local"])
    return None
