"""The addresses that RDMA lanes lead to, and those of this machine's devices."""

from __future__ import annotations

import os
import socket
import struct
from typing import cast

from rpmem.errors import ProviderUnavailable

__all__ = ["is_loopback", "own_addresses", "sockaddrs"]

_DEVICES = "/sys/class/infiniband"


def sockaddrs(host: str, port: int) -> list[bytes]:
    """Return every address of `host`, as ``sockaddr`` bytes for the kernel.

    Raises
    ------
    ProviderUnavailable
        There are none.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise ProviderUnavailable(f"{host} is not an address: {error}", where="verbs") from error
    result = []
    for family, _, _, _, address in found:
        text = str(address[0]).partition("%")[0]
        packed = socket.inet_pton(family, text)
        start = struct.pack("=H", family) + struct.pack("!H", address[1])
        if family == socket.AF_INET:
            result.append(start + packed + bytes(8))
        elif family == socket.AF_INET6:
            _, _, flow, scope = cast("tuple[str, int, int, int]", address)
            result.append(start + struct.pack("!I", flow) + packed + struct.pack("=I", scope))
    return list(dict.fromkeys(result))


def is_loopback(sockaddr: bytes) -> bool:
    """Return whether a packed address is a loopback address."""
    if len(sockaddr) == 16:
        return sockaddr[4] == 127
    return sockaddr[8:24] == socket.inet_pton(socket.AF_INET6, "::1")


def own_addresses() -> list[str]:
    """Return the internet addresses of this machine's RDMA ports, in a fixed order."""
    found = []
    for device in sorted(os.listdir(_DEVICES)) if os.path.isdir(_DEVICES) else ():
        ports = os.path.join(_DEVICES, device, "ports")
        for port in sorted(os.listdir(ports)):
            for index in sorted(map(int, os.listdir(os.path.join(ports, port, "gids")))):
                try:
                    with open(os.path.join(ports, port, "gids", str(index))) as file:
                        gid = bytes.fromhex(file.read().strip().replace(":", ""))
                except OSError:
                    break  # the rest of the table is empty
                if gid[:12] == bytes(10) + b"\xff\xff":
                    found.append(socket.inet_ntop(socket.AF_INET, gid[12:]))
                elif not any(gid):
                    break
    return list(dict.fromkeys(found))
