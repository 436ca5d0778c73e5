"""Whether this machine has persistent memory, and a DAX mapping is backed by it: what Linux says.

A flush of the processor's caches may reach a medium that does not keep the data: memory of CXL
devices and the "hmem" that firmware sets aside are device DAX like any other and may be volatile,
as may regions that libnvdimm itself calls volatile. Only a persistent region of libnvdimm is
trusted.
"""

from __future__ import annotations

import os
import stat

_DEPTH = 8


def can_be_here(sysfs: str = "/sys") -> bool:
    """Return whether this machine may have NVDIMMs: False only if the kernel knows of none."""
    try:
        return bool(os.listdir(f"{sysfs}/bus/nd/devices"))
    except FileNotFoundError:
        return not os.path.isdir(f"{sysfs}/bus")
    except OSError:
        return True


def is_persistent(fd: int, sysfs: str = "/sys") -> bool:
    """Return whether an open device DAX, or the file system of an open file, is on an NVDIMM.

    Parameters
    ----------
    fd : int
        A device DAX, or a file on a block device.
    sysfs : str
        Where sysfs is mounted.

    Returns
    -------
    bool
        False if it cannot be found out.
    """
    information = os.fstat(fd)
    if stat.S_ISCHR(information.st_mode):
        kind, number = "char", information.st_rdev
    else:
        kind, number = "block", information.st_dev
    return _device_is(kind, number, sysfs)


def _device_is(kind: str, number: int, sysfs: str) -> bool:
    return _place_is(f"{sysfs}/dev/{kind}/{os.major(number)}:{os.minor(number)}", _DEPTH)


def _place_is(device: str, depth: int) -> bool:
    """Return whether a device is in a persistent region, or made of devices that are."""
    place = os.path.realpath(device)
    words = place.split("/")
    for index in range(1, len(words)):
        if _is_numbered(words[index], "region") and _is_numbered(words[index - 1], "ndbus"):
            region = "/".join(words[: index + 1])
            # virtio's needs the host to flush, which flushing cache lines does not achieve.
            return not _is_numbered(words[index - 2], "virtio") and _type_of(region) == "nd_pmem"
    try:
        below = os.listdir(f"{place}/slaves")
    except OSError:
        return False
    return (
        bool(below)
        and depth > 0
        and all(_place_is(f"{place}/slaves/{each}", depth - 1) for each in below)
    )


def _is_numbered(word: str, stem: str) -> bool:
    return word.startswith(stem) and word[len(stem) :].isdecimal()


def _type_of(device: str) -> str:
    try:
        with open(f"{device}/uevent", encoding="ascii", errors="replace") as file:
            for line in file:
                name, _, value = line.rstrip("\n").partition("=")
                if name == "DEVTYPE":
                    return value
    except OSError:
        pass
    return ""
