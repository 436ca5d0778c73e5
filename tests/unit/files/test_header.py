"""Pool headers and attributes, against bytes captured from PMDK 1.12.1 and by mutation."""

from __future__ import annotations

import random
import uuid as uuid_module

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpmem.base.pool_format import HEADER_SIZE
from rpmem.base.values import replace
from rpmem.errors import AttributesRefused, HeaderError, UsageError
from rpmem.files.header import (
    ATTRIBUTES_SIZE,
    INCOMPAT_CKSUM_2K,
    INCOMPAT_SDS,
    INCOMPAT_SINGLEHDR,
    MAJOR,
    SIGNATURE,
    Header,
    PoolAttributes,
    ShutdownState,
    checksum,
    header_count,
    headers_for,
    host_arch_flags,
    random_uuid,
    uuid_text,
    verify,
    with_attributes,
)

# Attributes of a CREATE message captured between librpmem and rpmemd.
CAPTURED_ATTRIBUTES = bytes.fromhex(
    "5045455254455354 00000003 00000000 00000000 00000000"
    + "a1" * 16
    + "a2" * 16
    + "a3" * 16
    + "a4" * 16
    + "5a" * 16
)

# `pmempool create obj` on a set of three parts (with a replica), and on one with OPTION SINGLEHDR:
# the first 144 bytes of each part, and the checksum at 4088. All between is zero.
CAPTURED_PARTS = [
    (
        (
            "504d454d4f424a00060000000100000006000000000000007213d3ca530787469ecde1110d36e260"
            "d7f03b6bf54ec043b9550d7af4684c7237e88bb80657f1409f9b06549e6ea439318eb33e461cc14d"
            "a30aba9bf99343e38c0ac7c460db6045b4edea4fd562ff998c0ac7c460db6045b4edea4fd562ff99"
            "6de9026b0000000010737737f70700000201000000003e00"
        ),
        "82117b8a41da7b03",
    ),
    (
        (
            "504d454d4f424a00060000000100000006000000000000007213d3ca530787469ecde1110d36e260"
            "318eb33e461cc14da30aba9bf99343e3d7f03b6bf54ec043b9550d7af4684c7237e88bb80657f140"
            "9f9b06549e6ea4398c0ac7c460db6045b4edea4fd562ff998c0ac7c460db6045b4edea4fd562ff99"
            "6de9026b0000000010737737f70700000201000000003e00"
        ),
        "82117b8a0d0315d5",
    ),
    (
        (
            "504d454d4f424a00060000000100000006000000000000007213d3ca530787469ecde1110d36e260"
            "37e88bb80657f1409f9b06549e6ea439318eb33e461cc14da30aba9bf99343e3d7f03b6bf54ec043"
            "b9550d7af4684c728c0ac7c460db6045b4edea4fd562ff998c0ac7c460db6045b4edea4fd562ff99"
            "6de9026b0000000010737737f70700000201000000003e00"
        ),
        "82117b8aad303673",
    ),
]
CAPTURED_SINGLE = (
    (
        "504d454d4f424a000600000001000000070000000000000029f84d782ea6724dae1eb99f2cb2ea7e"
        "c8e832e76fbd7845b639685a6d418b89c8e832e76fbd7845b639685a6d418b89c8e832e76fbd7845"
        "b639685a6d418b89c8e832e76fbd7845b639685a6d418b89c8e832e76fbd7845b639685a6d418b89"
        "6de9026b0000000010737737f70700000201000000003e00"
    ),
    "160bc8272317996f",
)


def captured(pair: tuple[str, str]) -> bytes:
    return bytes.fromhex(pair[0]).ljust(4088, b"\0") + bytes.fromhex(pair[1])


def slow_checksum(data: bytes, end: int) -> int:
    """The definition, word by word."""
    low = high = 0
    for offset in range(0, 4096, 4):
        if offset < end and offset not in (4088, 4092):
            low = (low + int.from_bytes(data[offset : offset + 4], "little")) % 2**32
        high = (high + low) % 2**32
    return high << 32 | low


uuids = st.binary(min_size=16, max_size=16)
numbers = st.integers(0, 2**32 - 1)
attributes = st.builds(
    PoolAttributes,
    signature=st.binary(min_size=1, max_size=8).filter(any),
    major=numbers,
    compat=numbers,
    incompat=numbers,
    ro_compat=numbers,
    poolset_uuid=uuids,
    uuid=uuids,
    next_uuid=uuids,
    prev_uuid=uuids,
    user_flags=uuids,
)


# --- attributes -------------------------------------------------------------------------------


def test_captured_attributes():
    read = PoolAttributes.unpack(CAPTURED_ATTRIBUTES)
    assert read.signature == b"PEERTEST"
    assert (read.major, read.compat, read.incompat, read.ro_compat) == (3, 0, 0, 0)
    assert read.poolset_uuid == b"\xa1" * 16
    assert read.uuid == b"\xa2" * 16
    assert read.next_uuid == b"\xa3" * 16
    assert read.prev_uuid == b"\xa4" * 16
    assert read.user_flags == b"\x5a" * 16
    assert read.pack() == CAPTURED_ATTRIBUTES
    assert not read.is_zero


@given(attributes)
def test_attributes_round_trip(given_attributes):
    packed = given_attributes.pack()
    assert len(packed) == ATTRIBUTES_SIZE
    assert PoolAttributes.unpack(packed) == given_attributes
    assert PoolAttributes.unpack(memoryview(packed)) == given_attributes


def test_zero_attributes():
    assert PoolAttributes().is_zero
    assert PoolAttributes().pack() == bytes(104)
    assert PoolAttributes.unpack(bytes(104)) == PoolAttributes()
    assert not PoolAttributes(ro_compat=1).is_zero


def test_new_attributes():
    new = PoolAttributes.new()
    assert (new.signature, new.major) == (SIGNATURE, MAJOR)
    assert new.uuid == new.next_uuid == new.prev_uuid != new.poolset_uuid
    assert not new.incompat & INCOMPAT_SINGLEHDR
    assert PoolAttributes.new({"SINGLEHDR"}).incompat & INCOMPAT_SINGLEHDR
    assert PoolAttributes.new().uuid != new.uuid


def test_attributes_take_what_is_like_bytes():
    identity = uuid_module.uuid4()
    made = PoolAttributes(signature=bytearray(b"AB"), uuid=identity)  # type: ignore[arg-type]
    assert made.signature == b"AB\0\0\0\0\0\0"
    assert uuid_text(made.uuid) == str(identity)


@pytest.mark.parametrize(
    "fields",
    [
        {"signature": b"123456789"},
        {"signature": "PMEMOBJ"},
        {"uuid": b"short"},
        {"uuid": bytes(17)},
        {"user_flags": None},
        {"major": -1},
        {"compat": 2**32},
        {"incompat": "1"},
        {"ro_compat": 1.0},
    ],
)
def test_attributes_that_do_not_fit(fields):
    with pytest.raises(UsageError, match=next(iter(fields))):
        PoolAttributes(**fields)


@pytest.mark.parametrize("length", [0, 103, 105])
def test_attributes_of_another_length(length):
    with pytest.raises(UsageError):
        PoolAttributes.unpack(bytes(length))


def test_random_uuids_look_random_to_other_tools():
    value = uuid_module.UUID(bytes_le=random_uuid())
    assert value.version == 4
    assert value.variant == uuid_module.RFC_4122
    assert random_uuid() != random_uuid()


def test_arch_flags_of_this_machine():
    import platform

    if platform.machine() != "x86_64":
        pytest.skip(f"the captured flags are those of x86_64, this is {platform.machine()}")
    assert host_arch_flags() == bytes.fromhex("10737737f70700000201000000003e00")


# --- captured headers -------------------------------------------------------------------------


@pytest.mark.parametrize("pair", [*CAPTURED_PARTS, CAPTURED_SINGLE])
def test_captured_headers_pack_to_the_same_bytes(pair):
    data = captured(pair)
    header = Header.unpack(data)
    assert header.pack() == data
    assert header.expected_checksum == header.checksum
    assert header.arch_flags == bytes.fromhex("10737737f70700000201000000003e00")
    assert header.signature == b"PMEMOBJ\0"
    assert header.major == 6


def test_captured_headers_verify():
    headers = [Header.unpack(captured(pair)) for pair in CAPTURED_PARTS]
    read = verify(headers)
    assert uuid_text(read.uuid) == "6b3bf0d7-4ef5-43c0-b955-0d7af4684c72"
    assert uuid_text(read.poolset_uuid) == "cad31372-0753-4687-9ecd-e1110d36e260"
    single = [Header.unpack(captured(CAPTURED_SINGLE))]
    assert verify(single, options={"SINGLEHDR"}).incompat == 7


def test_we_make_the_headers_that_pmdk_made():
    theirs = [Header.unpack(captured(pair)) for pair in CAPTURED_PARTS]
    spare = iter([header.uuid for header in theirs] + [random_uuid()])
    ours = headers_for(
        theirs[0].attributes,
        3,
        crtimes=[header.crtime for header in theirs],
        new_uuid=lambda: next(spare),
    )
    # They were closed cleanly, ours are open.
    ours[0] = replace(ours[0], shutdown_state=bytes(64))
    assert [header.pack() for header in ours] == [header.pack() for header in theirs]


@given(st.integers(0, 2**32))
def test_any_bytes_survive(seed):
    data = random.Random(seed).randbytes(HEADER_SIZE)
    header = Header.unpack(data)
    assert header._packed(header.checksum) == data
    assert Header.unpack(header.pack()).checksum == header.expected_checksum


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("end", [2048, 4088])
def test_checksum_is_what_it_is_defined_to_be(seed, end):
    data = random.Random(seed).randbytes(4096)
    assert checksum(data, 4088, end) == slow_checksum(data, end)


# --- new headers ------------------------------------------------------------------------------


@given(attributes, st.integers(1, 6), st.sampled_from([(), ("SINGLEHDR",)]))
def test_new_headers_verify_and_give_back_the_attributes(given_attributes, n_parts, options):
    asked = given_attributes.for_options(options)
    headers = headers_for(asked, n_parts, options=options, crtimes=range(n_parts))
    assert len(headers) == header_count(n_parts, options)
    stored = [Header.unpack(header.pack()) for header in headers]
    assert stored == headers
    read = verify(stored, options=options)
    for field in ("signature", "major", "compat", "incompat", "ro_compat"):
        assert getattr(read, field) == getattr(asked, field)
    for field in ("poolset_uuid", "uuid", "user_flags", "next_uuid", "prev_uuid"):
        if any(getattr(asked, field)):
            assert getattr(read, field) == getattr(asked, field)
        else:
            assert any(getattr(read, field))
    assert [header.crtime for header in headers] == list(range(len(headers)))


def test_zero_fields_are_filled():
    headers = headers_for(PoolAttributes(signature=b"X"), 3)
    read = verify(headers)
    assert read.user_flags == host_arch_flags()
    assert read.next_uuid == read.prev_uuid == read.uuid
    assert len({read.poolset_uuid, *(header.uuid for header in headers)}) == 4


def test_one_part_is_its_own_neighbour():
    (header,) = headers_for(PoolAttributes.new(), 1)
    assert header.prev_part_uuid == header.next_part_uuid == header.uuid


@pytest.mark.parametrize(
    ("given_attributes", "options"),
    [
        (None, ()),
        (PoolAttributes(), ()),
        (PoolAttributes(), ("SINGLEHDR",)),
        (PoolAttributes.new(), ("NOHDRS",)),
        (PoolAttributes.new(), ("SINGLEHDR",)),
        (PoolAttributes.new(("SINGLEHDR",)), ()),
    ],
)
def test_attributes_that_do_not_go_with_the_options(given_attributes, options):
    with pytest.raises(AttributesRefused) as caught:
        headers_for(given_attributes, 2, options=options, where="pool.set")
    assert str(caught.value).startswith("pool.set: ")
    assert caught.value.hint
    headers = headers_for(PoolAttributes.new(), 2)
    with pytest.raises(AttributesRefused):
        with_attributes(headers, given_attributes or PoolAttributes(), options=options)


@pytest.mark.parametrize("none", [None, PoolAttributes()])
def test_no_headers(none):
    assert headers_for(none, 3, options={"NOHDRS"}) == []
    assert verify([], options={"NOHDRS"}).is_zero


# --- set_attr ---------------------------------------------------------------------------------


@given(attributes, attributes, st.integers(1, 5))
def test_set_attributes(before, after, n_parts):
    before, after = before.for_options(()), after.for_options(())
    headers = headers_for(before, n_parts, crtimes=range(7, 7 + n_parts))
    changed = with_attributes(headers, after)
    # A replica link to a part other than the first would mean that the parts are out of order.
    assert verify(changed) == after
    assert [header.crtime for header in changed] == [header.crtime for header in headers]
    assert [header.uuid for header in changed[1:]] == [header.uuid for header in headers[1:]]


def test_set_attributes_of_nothing():
    assert with_attributes([], PoolAttributes(), options={"NOHDRS"}) == []


# --- what is wrong ----------------------------------------------------------------------------


@given(
    st.data(),
    st.integers(1, 4),
    st.sampled_from([0, INCOMPAT_CKSUM_2K, INCOMPAT_SDS, INCOMPAT_CKSUM_2K | INCOMPAT_SDS]),
)
def test_a_changed_byte_is_found(data, n_parts, incompat):
    made = [
        bytearray(header.pack())
        for header in headers_for(replace(PoolAttributes.new(), incompat=incompat), n_parts)
    ]
    part = data.draw(st.integers(0, n_parts - 1))
    # With CKSUM_2K the second half is not covered, except for the checksum.
    covered = [*range(2048), *range(4088, 4096)] if incompat & INCOMPAT_CKSUM_2K else range(4096)
    position = data.draw(st.sampled_from(covered))
    made[part][position] ^= data.draw(st.integers(1, 255))
    names = [f"/pool/{index}" for index in range(n_parts)]
    with pytest.raises(HeaderError) as caught:
        verify([Header.unpack(each) for each in made], where=names)
    assert caught.value.where in names
    assert caught.value.hint


def test_second_half_is_free_with_cksum_2k():
    (header,) = headers_for(PoolAttributes.new(), 1)
    assert header.incompat & INCOMPAT_CKSUM_2K
    data = bytearray(header.pack())
    data[3000] = 1
    assert Header.unpack(data).pack() == data
    assert verify([Header.unpack(data)])


def three_parts(**fields):
    return headers_for(replace(PoolAttributes.new(), **fields), 3)


def sealed(header, **fields):
    header = replace(header, **fields)
    return replace(header, checksum=header.expected_checksum)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("signature", b"PMEMOBJ\0", "signature is 'PMEMOBJ', but 'RPMEMPY1' in a"),
        ("major", 9, "major version is 9, but 2 in a"),
        ("compat", 9, "compatible features is 0x9"),
        ("incompat", 10, "incompatible features is 0xa"),
        ("ro_compat", 9, "read-only compatible features is 0x9"),
        ("poolset_uuid", bytes(16), "UUID of the pool set is 00000000-"),
        ("prev_repl_uuid", bytes(16), "previous replica is 00000000-"),
        ("next_repl_uuid", bytes(16), "next replica is 00000000-"),
        ("arch_flags", bytes(16), "architecture flags is 0000"),
        ("prev_part_uuid", bytes(16), "previous part has UUID 00000000-"),
        ("next_part_uuid", bytes(16), "next part has UUID 00000000-"),
    ],
)
def test_each_reason_is_named(field, value, words):
    headers = three_parts()
    headers[1] = sealed(headers[1], **{field: value})
    with pytest.raises(HeaderError) as caught:
        verify(headers, where=["a", "b", "c"])
    assert words in str(caught.value)
    assert caught.value.where == "b"


def test_zero_header_is_named():
    headers = three_parts()
    headers[2] = Header.unpack(bytes(4096))
    with pytest.raises(HeaderError, match="all zero"):
        verify(headers)


def test_damage_is_named():
    headers = three_parts()
    headers[0] = replace(headers[0], checksum=1)
    with pytest.raises(HeaderError, match=r"part 0: .*damaged: its checksum is 0x0000000000000001"):
        verify(headers)


@pytest.mark.parametrize("order", [(0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)])
def test_wrong_order_is_named(order):
    headers = three_parts()
    with pytest.raises(HeaderError, match=r"part is .*order") as caught:
        verify([headers[index] for index in order], where=["a", "b", "c"])
    assert caught.value.code == "header"


def test_missing_and_foreign_parts_are_named():
    headers = three_parts()
    with pytest.raises(HeaderError, match="no part of the pool set has it"):
        verify(headers[:2])
    with pytest.raises(HeaderError, match="belongs to another pool"):
        verify([*headers[:2], three_parts()[2]])


@pytest.mark.parametrize(("made", "opened"), [((), ("SINGLEHDR",)), (("SINGLEHDR",), ())])
def test_singlehdr_must_agree_when_opening(made, opened):
    headers = headers_for(PoolAttributes.new(made), 1, options=made)
    with pytest.raises(HeaderError, match="SINGLEHDR"):
        verify(headers, options=opened)


@pytest.mark.parametrize("length", [0, 1, 4095])
def test_too_short_for_a_header(length):
    with pytest.raises(HeaderError, match=f"/x: the part has {length} bytes"):
        Header.unpack(bytes(length), "/x")


# --- shutdown state ---------------------------------------------------------------------------


def test_shutdown_state_bytes():
    assert ShutdownState().pack() == bytes(64)
    dirty = ShutdownState(dirty=True).pack()
    assert len(dirty) == 64
    assert dirty[16] == 1
    # Word 4 of 16 is 1: it is added to the running sum 12 times.
    assert dirty[56:] == (12 << 32 | 1).to_bytes(8, "little")
    counted = ShutdownState(shutdowns=3, device=0x1122334455667788).pack()
    assert counted[:16] == bytes.fromhex("0300000000000000 8877665544332211")


def test_shutdown_state_is_stored_only_when_asked_for():
    (plain,) = headers_for(PoolAttributes.new(), 1)
    assert plain.shutdown_state == bytes(64)
    asked = replace(PoolAttributes.new(), incompat=INCOMPAT_SDS | INCOMPAT_CKSUM_2K)
    first, second = headers_for(asked, 2, shutdown=ShutdownState(shutdowns=7, device=8))
    assert first.shutdown_state == ShutdownState(7, 8, dirty=True).pack()
    assert second.shutdown_state == bytes(64)


@pytest.mark.parametrize(
    "stored",
    [
        bytes(64),
        ShutdownState(3, 5).pack(),
        ShutdownState(3, 5, dirty=True).pack(),
        ShutdownState(2, 5).pack(),
        ShutdownState(2, 6).pack(),
        ShutdownState(2, 5, dirty=True).pack()[:-1] + b"\xff",
    ],
)
def test_shutdown_state_accepted(stored):
    assert ShutdownState(3, 5).checked(stored) == ShutdownState(3, 5, dirty=True)


@pytest.mark.parametrize(
    ("stored", "words"),
    [
        (ShutdownState(2, 5, dirty=True), "from 2 to 3"),
        (ShutdownState(3, 6, dirty=True), r"moved to another device\."),
        (ShutdownState(0, 0, dirty=True), "where libpmem2 was missing"),
    ],
)
def test_unsafe_shutdown_is_refused(stored, words):
    with pytest.raises(HeaderError, match=words) as caught:
        ShutdownState(3, 5).checked(stored.pack(), "/x")
    assert "replica" in str(caught.value)
