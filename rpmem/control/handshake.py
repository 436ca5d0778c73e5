"""The beginning of a control session: status word, protocol, version.

The target sends four bytes, the status word, before it has read anything. A native initiator sends
its Hello without waiting; the first bytes that a target reads show the protocol.
"""

from __future__ import annotations

import enum
import struct
from typing import Final, NamedTuple

from rpmem.control.framing import MAGIC
from rpmem.control.messages import Hello
from rpmem.control.reports import MAX_ERRNO
from rpmem.errors import VersionMismatch

# Native byte order, as in PMDK: a peer with the other byte order is detected here.
_STATUS: Final = struct.Struct("=I")
STATUS_SIZE: Final = _STATUS.size


class Protocol(enum.Enum):
    """The protocols of a control session."""

    NATIVE = "native"
    PMDK = "PMDK 0.1"


class Agreement(NamedTuple):
    """The version and features that two Hellos have in common."""

    version: int
    features: frozenset[str]


def pack_status(errno: int) -> bytes:
    """Return the status word: 0 if the target is ready, else the errno of the reason."""
    return _STATUS.pack(errno)


def unpack_status(word: bytes) -> int | None:
    """Return the errno in a status word; None if these bytes are not a status word."""
    (number,) = _STATUS.unpack(word)
    return number if number <= MAX_ERRNO else None


def detect(first_bytes: bytes) -> Protocol | None:
    """Return the protocol that an initiator speaks; None if more bytes are needed to tell.

    Parameters
    ----------
    first_bytes : bytes
        All bytes received so far. Four are always enough, and one is if it is not an ``R``.
    """
    if first_bytes.startswith(MAGIC):
        return Protocol.NATIVE
    return None if MAGIC.startswith(first_bytes) else Protocol.PMDK


def agree(initiator: Hello, target: Hello) -> Agreement:
    """Return the newest version and all features that both sides have.

    Raises
    ------
    VersionMismatch
        There is no common version; the hint names the side to upgrade.
    """
    version = min(initiator.version, target.version)
    if version < max(initiator.min_version, target.min_version):
        older, newer = ("initiator", "target")
        if target.version < initiator.version:
            older, newer = newer, older
        old, new = (initiator, target) if older == "initiator" else (target, initiator)
        raise VersionMismatch(
            f"the {older} ({old}) speaks control protocol {_versions(old)},"
            f" the {newer} ({new}) {_versions(new)}",
            hint=f"Upgrade rpmem on the {older}",
        )
    return Agreement(version, frozenset(initiator.features) & frozenset(target.features))


def _versions(hello: Hello) -> str:
    if hello.min_version == hello.version:
        return str(hello.version)
    return f"{hello.min_version} to {hello.version}"
