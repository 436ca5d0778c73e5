"""Unsafe shutdowns: a pool header's record of power losses of its device.

NVDIMMs count the power losses in which they could not save data on its way to them. A pool that was
open when the count went up may have lost stores that the memory controller had accepted. The layout
is ``struct shutdown_state`` of PMDK 1.12, at offset 4024 of the first part's header.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rpmem.base.values import Record, replace
from rpmem.errors import HeaderError, MissingExtension
from rpmem.files.checksum import checksum

if TYPE_CHECKING:
    from rpmem.files.partfile import PartFile

_SHUTDOWN = struct.Struct("<QQB39sQ")
_CHECKSUM_OFFSET = 56


class ShutdownState(Record):
    """The 64 bytes that show whether a device lost power while the pool was open.

    Files on devices without a count have count and id 0.

    Parameters
    ----------
    shutdowns : int
        Sum of the devices' unsafe shutdown counts.
    device : int
        Checksum of the devices' ids.
    dirty : bool
        The pool is open, or its process died.
    """

    shutdowns: int = 0
    device: int = 0
    dirty: bool = False

    def pack(self) -> bytes:
        """Return the 64 bytes including their checksum; all zero if there is nothing to record."""
        bare = _SHUTDOWN.pack(self.shutdowns, self.device, self.dirty, bytes(39), 0)
        return bare[:_CHECKSUM_OFFSET] + checksum(bare, _CHECKSUM_OFFSET).to_bytes(8, "little")

    def checked(self, stored: bytes, where: str | None = None) -> ShutdownState:
        """Compare this, the devices' present state, with the one in a header.

        Parameters
        ----------
        stored : bytes
            The 64 bytes of the header.
        where : str, optional
            The part, for the message.

        Returns
        -------
        ShutdownState
            The state to store while the pool is open: this one, dirty.

        Raises
        ------
        HeaderError
            The pool was open while a device lost power unsafely, or was moved while open.
        """
        left = _left_open(stored)
        same = left and (left.shutdowns, left.device) == (self.shutdowns, self.device)
        if left and not same:
            if left.device == self.device:
                what = (
                    f"while its device lost power unsafely (the count of unsafe shutdowns went "
                    f"from {left.shutdowns} to {self.shutdowns})"
                )
            elif left.device:
                what = "when it was moved to another device"
            else:
                what = "when it was moved to another device, or where libpmem2 was missing"
            raise HeaderError(
                f"the pool was open {what}",
                where=where,
                hint="Data may be lost: restore the pool from a replica",
            )
        return replace(self, dirty=True)


def _left_open(stored: bytes) -> ShutdownState | None:
    """Return the state of a pool that was not closed; None if it was, or was not in use yet."""
    shutdowns, device, dirty, _, told = _SHUTDOWN.unpack(stored)
    # A wrong checksum means a crash between two stores during opening or closing, when nothing
    # was being written to the pool itself; PMDK starts over too.
    trusted = told == checksum(stored, _CHECKSUM_OFFSET)
    return ShutdownState(shutdowns, device, dirty=True) if trusted and dirty else None


def checked(parts: Sequence[PartFile], stored: bytes) -> ShutdownState:
    """Compare the state of the devices with the one in a header, as `ShutdownState.checked` does.

    Raises
    ------
    HeaderError
        The pool was open while a device lost power unsafely, or was moved while open.
    MissingExtension
        It was left open on an NVDIMM, whose count only libpmem2 can read.
    """
    where = parts[0].path
    try:
        return state_of_devices(parts).checked(stored, where)
    except MissingExtension as error:
        left = _left_open(stored)
        if left and left.device:
            raise MissingExtension(
                f"the pool was not closed, and whether its device lost power unsafely since is not "
                f"known: {error.what}",
                where=where,
                hint=error.hint,
            ) from error
        return ShutdownState(dirty=True)


def state_when_made(parts: Sequence[PartFile]) -> ShutdownState:
    """Return the state of the devices of a new pool; no device's, where there is no libpmem2."""
    try:
        return state_of_devices(parts)
    except MissingExtension:
        return ShutdownState()


def state_of_devices(parts: Sequence[PartFile]) -> ShutdownState:
    """Sum up the states of the devices of all parts, as PMDK does.

    Raises
    ------
    MissingExtension
        There may be NVDIMMs here, and there is no libpmem2, which knows them.
    """
    from rpmem.memory.device import device_identity

    shutdowns = 0
    device = 0
    for part in parts:
        count, identity = device_identity(part.fd)
        shutdowns += count
        if identity:
            device += _plain_checksum(identity)
    return ShutdownState(shutdowns & (1 << 64) - 1, device & (1 << 64) - 1)


def _plain_checksum(identity: bytes) -> int:
    text = identity + b"\0"
    text += bytes(4 - len(text) % 4)
    low = high = 0
    for (word,) in struct.iter_unpack("<I", text):
        low = (low + word) & 0xFFFFFFFF
        high = (high + low) & 0xFFFFFFFF
    return high << 32 | low
