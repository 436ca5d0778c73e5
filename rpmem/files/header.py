"""The header of a pool part, and the pool attributes that travel between the sides.

The layout is that of ``struct pool_hdr`` in PMDK 1.12: 4096 bytes, little-endian, at the start of
every part (of the first part only with ``SINGLEHDR``, nowhere with ``NOHDRS``).

A header is kept byte for byte: bytes without a meaning here survive unpacking and packing, so pools
of other libraries pass through unharmed.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence

from rpmem.base.pool_format import HEADER_SIZE
from rpmem.base.values import replace
from rpmem.errors import HeaderError
from rpmem.files.attributes import (
    ATTRIBUTES_SIZE,
    INCOMPAT_CKSUM_2K,
    INCOMPAT_SDS,
    INCOMPAT_SINGLEHDR,
    MAJOR,
    NO_UUID,
    SIGNATURE,
    Beginning,
    Options,
    PoolAttributes,
    check_attributes,
    host_arch_flags,
    random_uuid,
    singlehdr_mismatch,
    uuid_text,
)
from rpmem.files.checksum import checksum
from rpmem.files.shutdown import ShutdownState

__all__ = [
    "ATTRIBUTES_SIZE",
    "INCOMPAT_CKSUM_2K",
    "INCOMPAT_SDS",
    "INCOMPAT_SINGLEHDR",
    "MAJOR",
    "SIGNATURE",
    "Header",
    "PoolAttributes",
    "ShutdownState",
    "check_attributes",
    "checksum",
    "header_count",
    "headers_for",
    "random_uuid",
    "uuid_text",
    "verify",
    "with_attributes",
]

_HEADER = struct.Struct("<8sIIII16s16s16s16s16s16sQ16s1904s1976s64sQ")
_CHECKSUM_OFFSET = 4088
_CHECKSUM_2K_END = 2048


class Header(Beginning):
    """The 4096 bytes at the start of a part, field by field in the order on the medium.

    `checksum` is the one read from the medium; `pack` always writes the correct one.
    """

    prev_part_uuid: bytes = NO_UUID
    next_part_uuid: bytes = NO_UUID
    prev_repl_uuid: bytes = NO_UUID
    next_repl_uuid: bytes = NO_UUID
    crtime: int = 0
    arch_flags: bytes = NO_UUID
    unused: bytes = bytes(1904)
    unused_2k: bytes = bytes(1976)
    shutdown_state: bytes = bytes(64)
    checksum: int = 0

    @classmethod
    def unpack(cls, data: bytes | bytearray | memoryview, where: str | None = None) -> Header:
        """Read a header without checking it.

        Parameters
        ----------
        data : bytes-like
            At least the first 4096 bytes of a part.
        where : str, optional
            The part, for the message.

        Returns
        -------
        Header
            To be checked by `verify`.

        Raises
        ------
        HeaderError
            There are fewer bytes.
        """
        if len(data) < HEADER_SIZE:
            raise HeaderError(
                f"the part has {len(data)} bytes, not enough for a header of {HEADER_SIZE}",
                where=where,
                hint="The file was truncated: restore it from a replica",
            )
        return cls(*_HEADER.unpack(memoryview(data)[:HEADER_SIZE]))

    def pack(self) -> bytes:
        """Return the 4096 bytes with the correct checksum."""
        return self._packed(self.expected_checksum)

    @property
    def expected_checksum(self) -> int:
        """The checksum of the other fields, over 2 KiB only if the header says so."""
        end = _CHECKSUM_2K_END if self.incompat & INCOMPAT_CKSUM_2K else _CHECKSUM_OFFSET
        return checksum(self._packed(0), _CHECKSUM_OFFSET, end)

    @property
    def is_zero(self) -> bool:
        """True if no byte of the header was ever written."""
        return not any(self._packed(self.checksum))

    @property
    def attributes(self) -> PoolAttributes:
        """The attributes that the first part's header holds."""
        return PoolAttributes(
            *self.beginning,
            self.next_repl_uuid,
            self.prev_repl_uuid,
            self.arch_flags,
        )

    def _packed(self, checksum: int) -> bytes:
        return _HEADER.pack(
            *self.beginning,
            self.prev_part_uuid,
            self.next_part_uuid,
            self.prev_repl_uuid,
            self.next_repl_uuid,
            self.crtime,
            self.arch_flags,
            self.unused,
            self.unused_2k,
            self.shutdown_state,
            checksum,
        )


def header_count(n_parts: int, options: Options) -> int:
    """Return how many of `n_parts` parts have a header under these pool set options."""
    if "NOHDRS" in options:
        return 0
    return min(n_parts, 1) if "SINGLEHDR" in options else n_parts


def headers_for(
    attributes: PoolAttributes | None,
    n_parts: int,
    *,
    options: Options = (),
    crtimes: Iterable[int] | None = None,
    shutdown: ShutdownState | None = None,
    where: str | None = None,
    new_uuid: Callable[[], bytes] = random_uuid,
) -> list[Header]:
    """Make the headers of a new pool.

    Parameters
    ----------
    attributes : PoolAttributes or None
        Those that the creator asked for; None, or all zero, for a pool without headers.
    n_parts : int
        Number of parts of the pool set.
    options : collection of str
        Options of the pool set: ``SINGLEHDR``, ``NOHDRS`` or none.
    crtimes : iterable of int, optional
        Creation time of every part that gets a header, in seconds (PMDK takes ``st_ctime``).
    shutdown : ShutdownState, optional
        The devices' state, for the first header of a pool with `INCOMPAT_SDS`; stored as dirty.
    where : str, optional
        The pool set, for messages.
    new_uuid : callable
        Source of the UUIDs that the attributes leave zero.

    Returns
    -------
    list of Header
        One per part, just one with ``SINGLEHDR``, none with ``NOHDRS``.

    Raises
    ------
    AttributesRefused
        When the attributes do not fit the options.
    """
    check_attributes(attributes, options, where=where)
    count = header_count(n_parts, options)
    if attributes is None or count == 0:
        return []
    uuids = [new_uuid() for _ in range(count)]
    if attributes.uuid != NO_UUID:
        uuids[0] = attributes.uuid
    first = _first_header(attributes, uuids[0], new_uuid())
    times = [0] * count if crtimes is None else list(crtimes)[:count]
    headers = [
        replace(
            first,
            uuid=uuids[index],
            prev_part_uuid=uuids[index - 1],
            next_part_uuid=uuids[(index + 1) % count],
            crtime=times[index],
        )
        for index in range(count)
    ]
    if attributes.incompat & INCOMPAT_SDS:
        state = replace(shutdown or ShutdownState(), dirty=True)
        headers[0] = replace(headers[0], shutdown_state=state.pack())
    return [_with_checksum(header) for header in headers]


def _first_header(attributes: PoolAttributes, uuid: bytes, poolset_uuid: bytes) -> Header:
    """Make the content that all headers of a new pool share, with the UUIDs chosen for them."""
    return Header(
        signature=attributes.signature,
        major=attributes.major,
        compat=attributes.compat,
        incompat=attributes.incompat,
        ro_compat=attributes.ro_compat,
        poolset_uuid=_either(attributes.poolset_uuid, poolset_uuid),
        prev_repl_uuid=_either(attributes.prev_uuid, uuid),
        next_repl_uuid=_either(attributes.next_uuid, uuid),
        arch_flags=_either(attributes.user_flags, host_arch_flags()),
    )


def with_attributes(
    headers: Sequence[Header],
    attributes: PoolAttributes,
    *,
    options: Options = (),
    where: str | None = None,
) -> list[Header]:
    """Return the headers of an existing pool with new attributes, as rpmem_set_attr(3) sets them.

    Unlike at creation, zero UUIDs and flags are stored as zero.

    Parameters
    ----------
    headers : sequence of Header
        As `headers_for` made them.
    attributes : PoolAttributes
        The attributes to store.
    options : collection of str
        Options of the pool set.
    where : str, optional
        The pool set, for messages.

    Returns
    -------
    list of Header
        With the first part's new UUID wherever a link leads to it.

    Raises
    ------
    AttributesRefused
        When the attributes do not fit the options.
    """
    check_attributes(attributes, options, where=where)
    changed = [
        replace(
            header,
            signature=attributes.signature,
            major=attributes.major,
            compat=attributes.compat,
            incompat=attributes.incompat,
            ro_compat=attributes.ro_compat,
            poolset_uuid=attributes.poolset_uuid,
            prev_repl_uuid=attributes.prev_uuid,
            next_repl_uuid=attributes.next_uuid,
            arch_flags=attributes.user_flags,
        )
        for header in headers
    ]
    if changed:
        changed[0] = replace(changed[0], uuid=attributes.uuid)
        changed[-1] = replace(changed[-1], next_part_uuid=attributes.uuid)
        second = 1 % len(changed)
        changed[second] = replace(changed[second], prev_part_uuid=attributes.uuid)
    return [_with_checksum(header) for header in changed]


def verify(
    headers: Sequence[Header],
    *,
    options: Options = (),
    where: Sequence[str] | None = None,
) -> PoolAttributes:
    """Check the headers of a pool's parts, individually and against each other.

    Parameters
    ----------
    headers : sequence of Header
        Of all parts that have one, in the order of the pool set file.
    options : collection of str
        Options of the pool set.
    where : sequence of str, optional
        Name of each part, for messages.

    Returns
    -------
    PoolAttributes
        The pool's; all zero if there are no headers.

    Raises
    ------
    HeaderError
        For the first fault, with the part, the reason and the remedy.
    """
    names = [f"part {index}" for index in range(len(headers))] if where is None else list(where)
    for header, name in zip(headers, names, strict=True):
        _check_alone(header, name)
    for index in range(1, len(headers)):
        _check_agreement(headers[index], headers[0], names[index], names[0])
    if not headers:
        return PoolAttributes()
    _check_links(headers, names)
    mismatch = singlehdr_mismatch(headers[0].incompat, options)
    if mismatch is not None:
        raise HeaderError(
            mismatch,
            where=names[0],
            hint="Correct the OPTION line of the pool set file",
        )
    return headers[0].attributes


def _check_alone(header: Header, name: str) -> None:
    if header.is_zero:
        raise HeaderError(
            "the header is all zero: no pool was created in this part",
            where=name,
            hint="Create the pool, or restore the part from a replica",
        )
    expected = header.expected_checksum
    if header.checksum != expected:
        raise HeaderError(
            f"the header is damaged: its checksum is {header.checksum:#018x}, "
            f"and should be {expected:#018x}",
            where=name,
            hint="Restore the part from a replica; if this file was never part of a pool, "
            "correct the pool set file",
        )


def _signature_text(value: bytes) -> str:
    return repr(value.rstrip(b"\0"))[1:]


# What all headers of a pool have in common, and how to show it if one of them is foreign.
_COMMON: tuple[tuple[str, str, Callable[..., str]], ...] = (
    ("signature", "signature", _signature_text),
    ("major", "major version", str),
    ("compat", "set of compatible features", hex),
    ("incompat", "set of incompatible features", hex),
    ("ro_compat", "set of read-only compatible features", hex),
    ("poolset_uuid", "UUID of the pool set", uuid_text),
    ("prev_repl_uuid", "UUID of the previous replica", uuid_text),
    ("next_repl_uuid", "UUID of the next replica", uuid_text),
    ("arch_flags", "field of architecture flags", bytes.hex),
)


def _check_agreement(header: Header, first: Header, name: str, first_name: str) -> None:
    for field, words, text in _COMMON:
        mine, other = getattr(header, field), getattr(first, field)
        if mine != other:
            raise HeaderError(
                f"the {words} is {text(mine)}, but {text(other)} in {first_name}",
                where=name,
                hint="The part belongs to another pool, or to an older state of this one: "
                "correct the pool set file, or restore the part from a replica",
            )


def _check_links(headers: Sequence[Header], names: Sequence[str]) -> None:
    known = {header.uuid: name for header, name in zip(headers, names, strict=True)}
    for index, header in enumerate(headers):
        neighbours = (
            ("previous", header.prev_part_uuid, (index - 1) % len(headers)),
            ("next", header.next_part_uuid, (index + 1) % len(headers)),
        )
        for side, linked, neighbour in neighbours:
            if linked == headers[neighbour].uuid:
                continue
            if linked in known:
                what = f"the {side} part is {known[linked]}, the pool set has {names[neighbour]}"
                raise HeaderError(what, where=names[index], hint=_ORDER)
            raise HeaderError(
                f"the {side} part has UUID {uuid_text(linked)}, and no part of the pool set has it",
                where=names[index],
                hint="A part is missing from the pool set file, or comes from another pool",
            )
    # The links form a ring without a beginning. Replicas are identified by their first parts.
    for linked in (headers[0].prev_repl_uuid, headers[0].next_repl_uuid):
        if known.get(linked, names[0]) != names[0]:
            raise HeaderError(f"the first part is {known[linked]}", where=names[0], hint=_ORDER)


_ORDER = "List the parts in the order in which the pool was created"


def _with_checksum(header: Header) -> Header:
    return replace(header, checksum=header.expected_checksum)


def _either(value: bytes, otherwise: bytes) -> bytes:
    return value if any(value) else otherwise
