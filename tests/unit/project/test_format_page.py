"""docs/format.md agrees with the code: offsets, sizes, kinds, limits."""

from __future__ import annotations

import re
import struct

import pytest

from rpmem.base.pool_format import HEADER_SIZE, RECORD_OFFSET, RECORD_SIZE
from rpmem.epochs import codec
from rpmem.epochs import record as record_of_copy
from rpmem.files.attributes import MAJOR, SIGNATURE
from rpmem.pool import maps, superblock
from rpmem.pool.catalogue import entries, extents, log, records, root
from rpmem.pool.superblock import Layout
from tests.support.pages import page, table, ticked

PAGE = page("docs/format.md")


def fields(format_):
    """Offset and size of each field of a struct, and of what is padding."""
    at, found = 0, []
    for count, code in re.findall(r"(\d*)([a-zA-Z])", format_):
        size = struct.calcsize(f"<{count}{code}")
        each = 1 if code in "sx" else int(count or 1)
        for _ in range(each):
            found.append((at, size // each))
            at += size // each
    return found


def rows_after(text, heading):
    section = text[text.index(heading) :]
    return [
        (int(offset), int(size))
        for offset, size, _ in table(section, "offset", "bytes", "what")
        if size.isdigit()
    ]


def pool(text):
    layout = Layout.plan(superblock.SMALLEST_POOL, bytes(16))
    real = [
        (0, HEADER_SIZE),
        (RECORD_OFFSET, RECORD_SIZE),
        (superblock.LAYOUT_OFFSET, superblock.LAYOUT_SIZE),
        (maps.TABLE_OFFSET, maps.TABLE_SIZE),
        *((layout.slot_offset(slot), layout.slot_size) for slot in range(superblock.SLOT_COUNT)),
    ]
    starts = [int(row[0]) for row in table(text, "offset", "bytes", "what")]
    if rows_after(text, "# The format") != real or starts[-1] != layout.data_start:
        return "pool"
    return None


def layout(text):
    size = superblock._LAYOUT.size
    real = [*fields(superblock._LAYOUT.format), (size, superblock.LAYOUT_SIZE - size)]
    return rows_after(text, "## Superblock") != real


def root_slot(text):
    real = [*fields(root._ROOT.format), (root._ROOT.size, root.ROOT_SIZE - root._ROOT.size)]
    return rows_after(text, "## Root") != real or f"first {root.ROOT_SIZE} bytes" not in text


def link(text):
    return rows_after(text, "## Log") != fields(log._LINK.format)


def record(text):
    section = text[text.index("A record has a header") :]
    return rows_after(section, "A record") != fields(records.HEADER.format)


def kinds(text):
    written = [(int(number), ticked(name)[0]) for number, name, _ in table(text, "kind", "name")]
    return written != [(kind.value, kind.name) for kind in records.Kind]


def words(text):
    """What is said in prose."""
    said = [
        SIGNATURE.decode(),
        f"major version {MAJOR}",
        superblock._MAGIC.decode(),
        root._MAGIC.decode(),
        maps._MAGIC.decode(),
        f"one bit for each {maps.PAGE} bytes",
        f"object of at most {records.MOST_ATTRS} bytes",
        f"1 to {entries.LONGEST_NAME} bytes",
        f"rounded up to {extents.SMALL_ALIGNMENT}",
        f"multiple of {extents.SMALL_ALIGNMENT}, or of {extents.PAGE_ALIGNMENT}",
        f"last {log._LINK.size} bytes",
        codec._MAGIC.decode(),
        f"at most {record_of_copy.MOST_MEMBERS} |",
        f"at most {record_of_copy.MOST_HISTORY} |",
        f"at most {record_of_copy.MOST_PARTED}: uuid",
        f"| {codec._STAMP.size} each | history",
        f"| {codec._PARTING.size} each | copies",
    ]
    flat = " ".join(text.split())
    return [each for each in said if each not in flat]


def map_table(text):
    """The head of the table, and where its entries begin."""
    written = rows_after(text, "## Maps")
    return (
        written != fields(maps._HEAD.format)
        or f"| {maps._HEAD.size} | {maps._ENTRY.size} each" not in text
    )


def map_entry(text):
    return rows_after(text, "An entry:") != fields(maps._ENTRY.format)


def copy_record(text):
    """The word, and the slots behind it."""
    slots = [(offset, codec.SLOT_SIZE) for offset in codec.SLOT_OFFSETS]
    return rows_after(text, "## Record of a copy") != [(0, codec.WORD_SIZE), *slots]


def marks(text):
    """The marks and their names."""
    section = text[text.index("| mark |") :]
    written = [(int(number), name.strip("*")) for number, name, _ in table(section, "mark", "", "")]
    return written != [(mark.value, mark.name.lower()) for mark in record_of_copy.Mark]


CHECKS = [
    pool,
    copy_record,
    marks,
    layout,
    root_slot,
    link,
    record,
    kinds,
    words,
    map_table,
    map_entry,
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_page_is_true(check):
    assert not check(PAGE)


@pytest.mark.parametrize(
    ("check", "old", "new"),
    [
        (pool, "| 28672 | 4096 |", "| 28673 | 4096 |"),
        (pool, "| 32768 | the rest |", "| 32769 | the rest |"),
        (layout, "| 60 | 4 |", "| 60 | 8 |"),
        (root_slot, "| 48 | 8 |", "| 48 | 4 |"),
        (root_slot, "first 136 bytes", "first 64 bytes"),
        (link, "| 16 | 8 | bytes of the next", "| 16 | 4 | bytes of the next"),
        (record, "| 4 | 4 |", "| 4 | 2 |"),
        (kinds, "| 3 | `RENAME`", "| 3 | `NAME`"),
        (map_table, "| 32 | 4 | how many", "| 32 | 8 | how many"),
        (map_table, "112 each", "104 each"),
        (map_entry, "| 64 | 8 | offset of the map", "| 64 | 4 | offset of the map"),
        (words, "65536", "65535"),
        (words, "RPMEMCR2", "RPMEMCR1"),
    ],
)
def test_this_test_sees_mistakes(check, old, new):
    assert old in PAGE
    assert check(PAGE.replace(old, new))
