"""Pool attributes, which describe a pool: set by its creator, read by everyone who opens it.

This is ``struct rpmem_pool_attr`` of rpmem_create(3). On the wire it is 104 bytes, big-endian; in
a pool its fields are spread over the header of the first part (see `rpmem.files.header`).
"""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Collection
from typing import Protocol

from rpmem.base.values import Record, replace
from rpmem.errors import AttributesRefused, UsageError

#: Size of packed attributes.
ATTRIBUTES_SIZE = 104
#: Signature and major version of pools that rpmem lays out itself.
SIGNATURE = b"RPMEMPY1"
MAJOR = 2

#: Incompatible features: a single header for the set, a checksum over 2 KiB, detection of unsafe
#: shutdowns. Other bits belong to other libraries and are kept unchanged.
INCOMPAT_SINGLEHDR = 1
INCOMPAT_CKSUM_2K = 2
INCOMPAT_SDS = 4

UUID_SIZE = 16
NO_UUID = bytes(UUID_SIZE)

#: Options of a pool set, such as ``{"SINGLEHDR"}``.
Options = Collection[str]

_ATTRIBUTES = struct.Struct(">8sIIII16s16s16s16s16s")
# ELF machine numbers (elf.h) of the 64-bit little-endian machines PMDK was ported to.
_ELF_MACHINES = {"x86_64": 62, "aarch64": 183, "ppc64le": 21, "riscv64": 243, "loongarch64": 258}
# Alignments of char, short, int, long, long long, size_t, off_t, float, double, long double and
# void *, each minus one, in four bits each from the lowest up: the same on all of those machines.
_ALIGNMENTS = 0x7F737777310


class _Uuid(Protocol):  # uuid.UUID, without importing uuid
    @property
    def bytes_le(self) -> bytes: ...


class Beginning(Record):
    """What attributes and the headers of parts begin with, in this order."""

    signature: bytes = bytes(8)
    major: int = 0
    compat: int = 0
    incompat: int = 0
    ro_compat: int = 0
    poolset_uuid: bytes = NO_UUID
    uuid: bytes = NO_UUID

    @property
    def beginning(self) -> tuple[bytes, int, int, int, int, bytes, bytes]:
        """These fields, as they are packed."""
        return (
            self.signature,
            self.major,
            self.compat,
            self.incompat,
            self.ro_compat,
            self.poolset_uuid,
            self.uuid,
        )


class PoolAttributes(Beginning):
    """What an application states about a pool when creating it, and reads when opening it.

    All fields zero means that the pool has no attributes and no header.

    Parameters
    ----------
    signature : bytes
        Up to 8 bytes, padded with zeros; identifies the library that laid out the pool.
    major : int
        Version of the layout.
    compat, incompat, ro_compat : int
        Feature bits, see `INCOMPAT_SINGLEHDR` and its neighbours.
    poolset_uuid : bytes or uuid.UUID
        Common to all replicas of one pool.
    uuid : bytes or uuid.UUID
        Of the first part of this replica.
    next_uuid, prev_uuid : bytes or uuid.UUID
        Of the first parts of the next and the previous replica.
    user_flags : bytes
        16 bytes; PMDK keeps its architecture flags here.

    Raises
    ------
    UsageError
        A value does not fit into its field.
    """

    next_uuid: bytes = NO_UUID
    prev_uuid: bytes = NO_UUID
    user_flags: bytes = NO_UUID

    def _check(self) -> None:
        signature = _as_bytes(self.signature, "signature")
        if len(signature) > 8:
            raise UsageError(f"a pool signature has at most 8 bytes, not {len(signature)}")
        object.__setattr__(self, "signature", signature.ljust(8, b"\0"))
        for name in ("major", "compat", "incompat", "ro_compat"):
            _check_u32(getattr(self, name), name)
        for name in ("poolset_uuid", "uuid", "next_uuid", "prev_uuid", "user_flags"):
            value = _as_bytes(getattr(self, name), name)
            if len(value) != UUID_SIZE:
                raise UsageError(f"{name} has 16 bytes, not {len(value)}")
            object.__setattr__(self, name, value)

    @classmethod
    def new(cls, options: Options = ()) -> PoolAttributes:
        """Return attributes for a new pool of rpmem's own layout.

        Parameters
        ----------
        options : collection of str
            Options of the pool set that the pool will live in.

        Returns
        -------
        PoolAttributes
            With random UUIDs; a single replica is its own neighbour.
        """
        uuid = random_uuid()
        return cls(
            signature=SIGNATURE,
            major=MAJOR,
            incompat=INCOMPAT_CKSUM_2K,
            poolset_uuid=random_uuid(),
            uuid=uuid,
            next_uuid=uuid,
            prev_uuid=uuid,
            user_flags=host_arch_flags(),
        ).for_options(options)

    @classmethod
    def unpack(cls, data: bytes | bytearray | memoryview) -> PoolAttributes:
        """Read the 104 bytes that `pack` writes.

        Parameters
        ----------
        data : bytes-like
            Exactly 104 bytes.

        Returns
        -------
        PoolAttributes
            Check `is_zero` to tell whether there are any.

        Raises
        ------
        UsageError
            `data` has another length.
        """
        if len(data) != ATTRIBUTES_SIZE:
            raise UsageError(f"packed pool attributes are {ATTRIBUTES_SIZE} bytes, not {len(data)}")
        return cls(*_ATTRIBUTES.unpack(data))

    def pack(self) -> bytes:
        """Return the attributes in their wire format: 104 bytes, integers big-endian."""
        return _ATTRIBUTES.pack(
            *self.beginning,
            self.next_uuid,
            self.prev_uuid,
            self.user_flags,
        )

    @property
    def is_zero(self) -> bool:
        """True if every byte is zero, which stands for "no attributes"."""
        return not any(self.pack())

    def for_options(self, options: Options) -> PoolAttributes:
        """Return these attributes with the feature bit for ``SINGLEHDR`` set as in `options`."""
        incompat = self.incompat & ~INCOMPAT_SINGLEHDR
        if "SINGLEHDR" in options:
            incompat |= INCOMPAT_SINGLEHDR
        return replace(self, incompat=incompat)


def _as_bytes(value: bytes | _Uuid, name: str) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value)
    inner = getattr(value, "bytes_le", None)
    if isinstance(inner, bytes):
        return inner
    raise UsageError(f"{name} consists of bytes, not {type(value).__name__}")


def _check_u32(value: int, name: str) -> None:
    if not isinstance(value, int) or not 0 <= value <= 0xFFFFFFFF:
        raise UsageError(f"{name} is a number of 32 bits, not {value!r}")


def random_uuid() -> bytes:
    """Return a new random UUID (version 4) as PMDK stores them, see `uuid_text`."""
    value = bytearray(os.urandom(UUID_SIZE))
    value[7] = value[7] & 0x0F | 0x40
    value[8] = value[8] & 0x3F | 0x80
    return bytes(value)


def uuid_text(value: bytes) -> str:
    """Return a UUID of a header as ``pmempool info`` prints it.

    Parameters
    ----------
    value : bytes
        16 bytes. Their first three fields are little-endian, like ``uuid.UUID.bytes_le``.

    Returns
    -------
    str
        Five groups of hexadecimal digits.
    """
    low, middle, high = struct.unpack("<IHH", value[:8])
    return f"{low:08x}-{middle:04x}-{high:04x}-{value[8:10].hex()}-{value[10:].hex()}"


def host_arch_flags() -> bytes:
    """Return the 16 bytes that describe this machine's ABI in a header.

    Returns
    -------
    bytes
        Alignments (8 bytes), ELF class and data encoding, 4 reserved bytes, ELF machine.
    """
    machine = _ELF_MACHINES.get(os.uname().machine, 0)
    elf_class = 2 if sys.maxsize > 1 << 32 else 1
    encoding = 1 if sys.byteorder == "little" else 2
    return struct.pack("<QBB4xH", _ALIGNMENTS, elf_class, encoding, machine)


def check_attributes(
    attributes: PoolAttributes | None, options: Options, *, where: str | None = None
) -> None:
    """Check that attributes agree with a pool set's options.

    Parameters
    ----------
    attributes : PoolAttributes or None
        None and all zero mean the same.
    options : collection of str
        Options of the pool set.
    where : str, optional
        The pool set, for the message.

    Raises
    ------
    AttributesRefused
        They do not agree; the error has the remedy.
    """
    absent = attributes is None or attributes.is_zero
    if "NOHDRS" in options:
        if not absent:
            raise AttributesRefused(
                "the pool set has OPTION NOHDRS, so it has no place for pool attributes",
                where=where,
                hint="Give no attributes, or remove the option from the pool set file",
            )
        return
    if attributes is None or absent:
        raise AttributesRefused(
            "the pool set has headers, and pool attributes are missing or all zero",
            where=where,
            hint="Give attributes, or put OPTION NOHDRS into the pool set file",
        )
    mismatch = singlehdr_mismatch(attributes.incompat, options)
    if mismatch is not None:
        raise AttributesRefused(
            mismatch,
            where=where,
            hint="Make bit 0 of incompat agree with the option in the pool set file",
        )


def require_attributes(given: object) -> None:
    """Raise `UsageError` unless the argument is a `PoolAttributes`."""
    if not isinstance(given, PoolAttributes):
        raise UsageError(f"attributes are PoolAttributes, not {type(given).__name__}")


def keeps_record(attributes: PoolAttributes | None) -> bool:
    """Whether a pool's copies have a record behind their headers: rpmem laid it out itself."""
    return (
        attributes is not None and attributes.signature == SIGNATURE and attributes.major == MAJOR
    )


def singlehdr_mismatch(incompat: int, options: Options) -> str | None:
    """Say how the feature bit and the option for a single header disagree.

    Parameters
    ----------
    incompat : int
        Incompatible feature bits of attributes or a header.
    options : collection of str
        Options of the pool set.

    Returns
    -------
    str or None
        None if they agree.
    """
    marked = bool(incompat & INCOMPAT_SINGLEHDR)
    if marked == ("SINGLEHDR" in options):
        return None
    if marked:
        return "the pool is marked as having a single header, but the pool set lacks SINGLEHDR"
    return "the pool set has OPTION SINGLEHDR, but the pool is not marked as having a single header"
