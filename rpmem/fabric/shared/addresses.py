"""Socket addresses, as the kernel and fabric libraries keep them."""

from __future__ import annotations

import socket

__all__ = ["IPV4_SIZE", "IPV6_SIZE", "address_of"]

#: Sizes of a ``sockaddr_in`` and of a ``sockaddr_in6``.
IPV4_SIZE, IPV6_SIZE = 16, 28


def address_of(raw: bytes) -> tuple[str, int]:
    """Return host and port of a ``sockaddr``; ``("", 0)`` if its family is unknown.

    Parameters
    ----------
    raw : bytes
        The address, perhaps followed by more bytes.
    """
    family = int.from_bytes(raw[:2], "little")
    port = int.from_bytes(raw[2:4], "big")
    if family == socket.AF_INET and len(raw) >= 8:
        return (socket.inet_ntop(socket.AF_INET, raw[4:8]), port)
    if family == socket.AF_INET6 and len(raw) >= 24:
        return (socket.inet_ntop(socket.AF_INET6, raw[8:24]), port)
    return ("", 0)
