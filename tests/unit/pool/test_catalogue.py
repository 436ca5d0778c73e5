"""The catalogue against a medium that crashes everywhere.

`CrashMedium` keeps two images: what the process sees, and what has been made durable. At a power
cut every aligned 8-byte word that differs between them is, independently, old or new. At a kill
the process's image survives, durable or not. Replication is modelled the same way: a target
has seen an arbitrary subset of the words that are on their way to it. Ranges that become durable
together do so in no order.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rpmem.errors import (
    ArrayExists,
    ArrayNotFound,
    CatalogueCorrupt,
    PoolFull,
    PoolSetTooSmall,
    UsageError,
)
from rpmem.pool.catalogue import log as logs
from rpmem.pool.catalogue import records
from rpmem.pool.catalogue.catalogue import Catalogue
from rpmem.pool.catalogue.entries import LONGEST_NAME, describe, parse
from rpmem.pool.catalogue.extents import PAGE_ALIGNMENT, SMALL_ALIGNMENT
from rpmem.pool.catalogue.log import Log
from rpmem.pool.catalogue.root import ROOT_SIZE, Root, read_slots
from rpmem.pool.superblock import (
    LAYOUT_OFFSET,
    LAYOUT_SIZE,
    SMALLEST_POOL,
    Layout,
)

POOL_ID = bytes(range(16))
POOL_SIZE = 80 * 1024
WORD = 8


class Crashed(Exception):
    """The process of the model is gone."""


class CrashMedium:
    """A local copy and one replica, each with what it shows and what would survive."""

    def __init__(self, size: int = POOL_SIZE, filling: int = 0) -> None:
        self.seen = np.full(size, filling, dtype=np.uint8)
        self.durable = self.seen.copy()
        self.remote = self.seen.copy()
        self.fuse = -1  # events until the crash; negative: never
        self.gone = False
        self.events = 0

    # --- what the catalogue calls ---

    def load(self, offset: int, length: int) -> bytes:
        assert offset + length <= len(self.seen)
        return self.seen[offset : offset + length].tobytes()

    def store(self, offset: int, data: bytes) -> None:
        self.tick(lambda: self.write(offset, data))

    def zero(self, offset: int, length: int) -> None:
        self.tick(lambda: self.write(offset, bytes(length)))

    def persist(self, offset: int, length: int) -> None:
        self.tick(lambda: self.copy(self.durable, offset, length))

    def spread(self, ranges: Sequence[tuple[int, int]]) -> None:
        for image in (self.durable, self.remote):
            self.tick(functools.partial(self.copy_all, image, ranges), ranges)

    # --- the model ---

    def write(self, offset: int, data: bytes) -> None:
        assert offset + len(data) <= len(self.seen)
        self.seen[offset : offset + len(data)] = np.frombuffer(data, dtype=np.uint8)

    def copy(self, image: np.ndarray, offset: int, length: int) -> None:
        image[offset : offset + length] = self.seen[offset : offset + length]

    def copy_all(self, image: np.ndarray, ranges: Sequence[tuple[int, int]]) -> None:
        for offset, length in ranges:
            self.copy(image, offset, length)

    def tick(self, event: Callable[[], None], ranges: Sequence[tuple[int, int]] = ()) -> None:
        """Let one event happen; when the fuse ends here, let it happen in part."""
        if self.gone:
            raise Crashed
        self.events += 1
        if self.fuse == 0:
            self.gone = True
            before = self.seen.copy(), self.durable.copy(), self.remote.copy()
            event()
            images = (self.seen, self.durable, self.remote)
            for image, old in zip(images, before, strict=True):
                for offset, length in ranges or [(0, len(image))]:
                    part = slice(offset, offset + length)
                    mix(image[part], old[part], self.dice)
            raise Crashed
        self.fuse -= 1
        event()

    def arm(self, fuse: int, seed: int) -> None:
        self.fuse, self.dice = fuse, np.random.default_rng(seed)

    def power_cut(self, seed: int) -> None:
        """Whatever was not made durable is there or not, word by word."""
        mix(self.seen, self.durable, np.random.default_rng([1, seed]))
        self.durable[:] = self.seen
        self.kill()

    def kill(self) -> None:
        """Only the process is gone: what it stored is seen by the next one."""
        self.fuse, self.gone = -1, False


def mix(image: np.ndarray, old: np.ndarray, dice: np.random.Generator) -> None:
    """Give every word of `image` its old value with a probability drawn once."""
    share = dice.choice([0.0, 0.1, 0.5, 0.9, 1.0])
    words, old_words = image.view(np.uint64), old.view(np.uint64)
    changed = np.flatnonzero(words != old_words)
    back = changed[dice.random(len(changed)) < share]
    words[back] = old_words[back]


def fresh(
    kind: type[Catalogue] = Catalogue, filling: int = 0, size: int = POOL_SIZE
) -> tuple[CrashMedium, Catalogue]:
    medium = CrashMedium(size, filling)
    return medium, kind.format(medium, Layout.plan(size, POOL_ID), zeroed=filling == 0)


def read(medium: CrashMedium, kind: type[Catalogue] = Catalogue, *, clean: bool = False):
    layout = Layout.unpack(medium.load(LAYOUT_OFFSET, LAYOUT_SIZE))
    return kind.read(medium, layout, clean=clean, where="this copy")


def reload(medium: CrashMedium, kind: type[Catalogue] = Catalogue) -> Catalogue:
    catalogue = read(medium, kind)
    catalogue.settle(medium)
    return catalogue


def put(catalogue: Catalogue, name: str, length: int = 100) -> None:
    catalogue.create_all(wanted([name], length))


def wanted(names: Sequence[str], length: int = 100) -> list[tuple[str, int, str]]:
    return [(name, length, describe((length,), "C", "|u1")) for name in names]


def remote_view(medium: CrashMedium) -> CrashMedium:
    view = CrashMedium(len(medium.seen))
    view.seen[:] = view.durable[:] = view.remote[:] = medium.remote
    return view


# --- plain use ---


def test_a_new_catalogue_is_empty_here_and_on_the_replica():
    medium, catalogue = fresh(filling=0xA5)
    assert dict(catalogue.entries) == {}
    medium.power_cut(0)
    assert dict(reload(medium).entries) == {}
    assert dict(reload(remote_view(medium)).entries) == {}


def test_entries_come_back_as_they_were():
    medium, catalogue = fresh()
    dtype = {"names": ["ä"], "formats": ["<f8"], "offsets": [0], "itemsize": 8}
    catalogue.create_all([("Größe", 24, describe((3, 1), "F", dtype))])
    made = catalogue.find("Größe")
    assert (made.length, made.shape, made.order) == (24, (3, 1), "F")
    put(catalogue, "b")
    again = reload(medium)
    assert again.find("Größe") == made
    assert again.find("Größe").dtype == dtype
    assert list(again.entries) == ["Größe", "b"]
    assert dict(reload(remote_view(medium)).entries) == dict(again.entries)


def test_extents_are_aligned_apart_and_inside():
    _, catalogue = fresh()
    for index, length in enumerate([1, 0, 63, 64, 65, 4095, 4096, 10000]):
        put(catalogue, str(index), length)
    entries = sorted(catalogue.entries.values(), key=lambda entry: entry.offset)
    for before, after in itertools.pairwise(entries):
        assert before.end <= after.offset
    for entry in entries:
        large = entry.length >= PAGE_ALIGNMENT
        assert entry.offset % (PAGE_ALIGNMENT if large else SMALL_ALIGNMENT) == 0
        assert entry.end <= POOL_SIZE


def test_a_reused_extent_is_zeroed_everywhere_before_it_is_published():
    medium, catalogue = fresh(filling=0xFF)
    put(catalogue, "first")
    first = catalogue.find("first")
    medium.write(first.offset, b"\xee" * first.length)
    for image in (medium.durable, medium.remote):
        medium.copy(image, first.offset, first.length)
    catalogue.remove("first")
    put(catalogue, "second")
    second = catalogue.find("second")
    assert second.offset == first.offset
    for image in (medium.seen, medium.durable, medium.remote):
        assert not np.any(image[second.offset : second.end])


def test_refusals():
    _, catalogue = fresh()
    put(catalogue, "a")
    with pytest.raises(ArrayExists, match="'a'"):
        put(catalogue, "a")
    with pytest.raises(ArrayNotFound, match=r"no array named 'b'.*It has 'a'") as caught:
        catalogue.remove("b")
    assert isinstance(caught.value, KeyError)
    for name in ("", "x" * (LONGEST_NAME + 1), "new\nline", "nul\0", "\ud800", 7):
        with pytest.raises(UsageError):
            put(catalogue, name)
    with pytest.raises(PoolFull, match="largest has") as full:
        put(catalogue, "big", POOL_SIZE)
    assert "Delete arrays" in str(full.value)
    put(catalogue, "c")
    assert list(catalogue.entries) == ["a", "c"]


def test_a_superblock_whose_data_begin_elsewhere_is_refused():
    layout = Layout.plan(POOL_SIZE, POOL_ID)
    assert Layout.unpack(layout.pack()) == layout
    moved = Layout(POOL_ID, POOL_SIZE, layout.slot_size, layout.data_start + 4096)
    with pytest.raises(CatalogueCorrupt, match="unknown layout"):
        Layout.unpack(moved.pack())


def test_names_are_measured_in_bytes():
    _, catalogue = fresh()
    put(catalogue, "\u00e9" * (LONGEST_NAME // 2))
    with pytest.raises(UsageError):
        put(catalogue, "\u00e9" * (LONGEST_NAME // 2 + 1))


def test_the_old_superblock_is_gone_before_the_slots_are_cleared():
    medium, _ = fresh(filling=255)
    cleared = []
    medium.zero = lambda offset, length: cleared.append((offset, length))
    Catalogue.format(medium, Layout.plan(POOL_SIZE, POOL_ID))
    assert cleared[0] == (LAYOUT_OFFSET, LAYOUT_SIZE)


def fill(catalogue: Catalogue, length: int = 1) -> int:
    for index in itertools.count():
        try:
            put(catalogue, f"{index:0200}", length)
        except PoolFull:
            return index
    raise AssertionError


def test_a_full_pool_refuses_before_it_writes_and_lets_everything_be_removed():
    medium, catalogue = fresh()
    assert fill(catalogue) > 20
    before, events = list(catalogue.entries), medium.events
    with pytest.raises(PoolFull):
        put(catalogue, "y" * 250, 1)
    assert medium.events == events
    assert list(reload(medium).entries) == before
    for name in before:
        catalogue.remove(name)
    assert not reload(medium).entries
    assert fill(catalogue) > len(before) // 2


def test_a_pool_that_is_full_of_arrays_lets_one_come_and_go_for_ever():
    """What the log takes does not grow with what is gone."""
    medium, catalogue = fresh()
    put(catalogue, "comes and goes")
    put(catalogue, "most", catalogue._free.largest // 4096 * 4096 - 4096)
    for _ in range(1000):
        catalogue.remove("comes and goes")
        put(catalogue, "comes and goes")
    assert dict(reload(medium).entries) == dict(catalogue.entries)


def test_a_pool_can_be_too_small():
    Layout.plan(SMALLEST_POOL, POOL_ID)
    with pytest.raises(PoolSetTooSmall, match="not enough"):
        Layout.plan(SMALLEST_POOL - 1, POOL_ID)


# --- damaged media ---


def test_a_torn_root_falls_back_and_two_are_an_error():
    medium, catalogue = fresh()
    put(catalogue, "a")
    put(catalogue, "b")
    layout = catalogue._layout
    medium.seen[layout.slot_offset(catalogue._slot) + 70] ^= 1
    assert list(Catalogue.read(medium, layout).entries) == ["a"]
    medium.seen[layout.slot_offset(1 - catalogue._slot) + 70] ^= 1
    with pytest.raises(CatalogueCorrupt, match="Restore the pool from a replica"):
        reload(medium)


@pytest.mark.parametrize("arrays", [0, 1, 2, 5])
def test_a_copy_that_was_closed_has_both_its_roots(arrays):
    medium, catalogue = fresh()
    for index in range(arrays):
        put(catalogue, f"a{index}")
    assert dict(read(medium, clean=True).entries) == dict(catalogue.entries)


def lived_in() -> tuple[CrashMedium, Catalogue]:
    """A catalogue with every kind of record in it, in several extents."""
    medium, catalogue = fresh()
    catalogue.create_all(wanted(["a", "b", "c"]))
    catalogue.rename("b", "B")
    catalogue.set_attrs("B", '{"unit":"K"}')
    catalogue.set_attrs(None, '{"title":"t"}')
    catalogue.remove("c")
    catalogue.create_all(wanted([f"{index:0250}" for index in range(12)], 1))
    assert len(catalogue.spans) == 2
    catalogue.set_attrs("a", '{"unit":"s"}')
    catalogue.rename("a", "A")
    assert all(root_in(medium, catalogue, slot).record for slot in range(2))
    return medium, catalogue


def root_in(medium: CrashMedium, catalogue: Catalogue, slot: int) -> Root:
    layout = catalogue._layout
    root = Root.unpack(medium.load(layout.slot_offset(slot), layout.slot_size), POOL_ID)
    assert root is not None
    return root


def damage_everywhere(medium: CrashMedium, catalogue: Catalogue, read, **how: bool) -> set[int]:
    """Flip a bit of every byte that counts; return those that gave something else in silence."""
    layout, log = catalogue._layout, catalogue._log
    places = [
        layout.slot_offset(slot) + at
        for slot in range(2)
        for at in range(root_in(medium, catalogue, slot).size)
    ]
    left = log.tail
    for (offset, length), following in itertools.zip_longest(log.extents, log.extents[1:]):
        used = left
        if following is not None:
            link = offset + length - 32
            places += range(link, link + 32)
            used = int.from_bytes(medium.load(link, 8), "little")
        places += range(offset, offset + used)
        left -= used
    right = dict(catalogue.entries)
    wrong = set()
    for at in places:
        medium.seen[at] ^= 1 << at % 8
        found = None
        with suppress(CatalogueCorrupt):
            found = dict(read(medium, **how).entries)
        if found is not None and (how or found != right):
            wrong.add(at)
        medium.seen[at] ^= 1 << at % 8
    return wrong


def test_no_bit_of_a_copy_that_was_closed_can_flip_unnoticed():
    medium, catalogue = lived_in()
    assert not damage_everywhere(medium, catalogue, read, clean=True)


def test_damage_to_a_copy_that_was_not_closed_is_noticed_but_in_the_newest_root():
    medium, catalogue = lived_in()
    wrong = damage_everywhere(medium, catalogue, read)
    newest = catalogue._layout.slot_offset(catalogue._slot)
    assert wrong == set(range(newest, newest + catalogue._root.size))


def test_the_flipped_bits_are_seen_where_no_sum_is_checked(monkeypatch):
    """The negative control of the two before."""
    medium, catalogue = lived_in()

    class Agreeable(bytes):
        __hash__ = None

        def __eq__(self, other):
            return True

        def __ne__(self, other):
            return False

    unpack = Root.unpack

    def trusting(data, key):
        root = unpack(data, key)
        return root and dataclasses.replace(root, chain=Agreeable(root.chain))

    monkeypatch.setattr(Root, "unpack", trusting)
    assert damage_everywhere(medium, catalogue, read)


@pytest.mark.parametrize("filling", ["zeros", "the root before the last two", "what it was"])
def test_a_lost_write_of_the_newest_root_is_noticed(filling):
    medium, catalogue = fresh()
    put(catalogue, "a")
    begin = catalogue._layout.slot_offset(catalogue._slot)
    end = begin + catalogue._layout.slot_size
    before = medium.seen[begin:end].copy()
    put(catalogue, "b")
    put(catalogue, "c")
    assert catalogue._layout.slot_offset(catalogue._slot) == begin
    if filling == "zeros":
        medium.seen[begin:end] = 0
    elif filling == "the root before the last two":
        medium.seen[begin:end] = before
        put(catalogue, "d")
    if filling == "what it was":
        assert list(read(medium, clean=True).entries) == ["a", "b", "c"]
        return
    with pytest.raises(CatalogueCorrupt, match="not what it was when this copy was closed"):
        read(medium, clean=True)


def tear(medium: CrashMedium, catalogue: Catalogue) -> None:
    """Let a crash leave half of a root in the slot that does not count."""
    layout = catalogue._layout
    begin = layout.slot_offset(1 - catalogue._slot)
    medium.seen[begin : begin + ROOT_SIZE // 2] = 0xEE
    medium.durable[:] = medium.remote[:] = medium.seen


def test_a_torn_root_is_mended_by_who_opens_the_copy_durably_everywhere():
    medium, catalogue = fresh()
    put(catalogue, "a")
    put(catalogue, "b")
    tear(medium, catalogue)
    with pytest.raises(CatalogueCorrupt):
        read(medium, clean=True)
    assert list(reload(medium).entries) == ["a", "b"]
    medium.power_cut(1)
    for view in (medium, remote_view(medium)):
        assert list(read(view, clean=True).entries) == ["a", "b"]


def test_a_torn_record_is_mended_by_who_opens_the_copy_durably_everywhere():
    medium, catalogue = fresh()
    put(catalogue, "a")
    put(catalogue, "b")
    record = catalogue._root.record
    place = slice(catalogue._log.end - len(record), catalogue._log.end)
    for image in (medium.seen, medium.durable, medium.remote):
        image[place.start + 24 : place.stop] = 0xEE
    with pytest.raises(CatalogueCorrupt):
        read(medium, clean=True)
    assert list(read(medium).entries) == ["a", "b"]
    assert list(reload(medium).entries) == ["a", "b"]
    for image in (medium.seen, medium.durable, medium.remote):
        assert image[place].tobytes() == record


def test_looking_mends_nothing():
    medium, catalogue = fresh()
    put(catalogue, "a")
    tear(medium, catalogue)
    events = medium.events
    Catalogue.read(medium, catalogue._layout)
    assert medium.events == events


def test_roots_of_another_pool_are_not_valid():
    medium, catalogue = fresh()
    put(catalogue, "a")
    other = Layout.plan(POOL_SIZE, bytes(16))
    with pytest.raises(CatalogueCorrupt):
        Catalogue.read(medium, other)


def of(name: str = "a", offset: int = 32768, length: int = 8) -> bytes:
    return records.put([(name, length, '[[1],"C","<f8"]')], [offset])


SENSELESS = {
    "half a record": of()[:-8],
    "a record that is longer than the log": of()[:8] + (1 << 40).to_bytes(8, "little") + of()[16:],
    "an unknown kind": b"\x63" + of()[1:],
    "a name twice": of() + of(offset=36864),
    "a name twice in one": records.put([("a", 8, "[]"), ("a", 8, "[]")], [32768, 36864]),
    "no name": of(""),
    "no name among others": records.put([("", 8, "[]"), ("a", 8, "[]")], [32768, 36864]),
    "a long name": of("x" * 256),
    "a long name among others": records.put([("ä" * 128, 8, "[]"), ("a", 8, "[]")], [32768, 36864]),
    "a name with a bell": of("\a"),
    "a name with a bell among others": records.put(
        [("\a", 8, "[]"), ("a", 8, "[]")], [32768, 36864]
    ),
    "an extent in the superblock": of(offset=20480),
    "an extent in the log": of(offset=32768),
    "an extent that is not aligned": of(offset=32769),
    "extents that overlap": of() + of("b"),
    "an extent beyond the end": of(length=1 << 62),
    "what is not there removed": of() + records.drop(["b"]),
    "what is not there renamed": of() + records.rename("b", "c"),
    "a name that is taken": of() + of("b", 36864) + records.rename("a", "b"),
    "attributes of nothing": records.attrs("a", "{}"),
    "no text": of()[:40] + b"\xff" * 24,
}


@pytest.mark.parametrize("what", SENSELESS)
def test_a_meaningless_catalogue_with_a_good_checksum_is_a_typed_error(what):
    medium, catalogue = fresh()
    content = SENSELESS[what]
    offset, length = catalogue._log.extents[0]
    medium.seen[offset : offset + len(content)] = np.frombuffer(content, np.uint8)
    log = Log.of((offset, length), content, POOL_ID)
    arrays = 1 if content else 0
    for count in (arrays, 2, 0):
        catalogue._root = dataclasses.replace(catalogue._root, count=count)
        catalogue._publish(log)
        with pytest.raises(CatalogueCorrupt, match="makes no sense"):
            read(medium)


def test_a_catalogue_with_fewer_arrays_than_its_root_says_is_refused():
    medium, catalogue = fresh()
    put(catalogue, "a")
    catalogue._root = dataclasses.replace(catalogue._root, count=2)
    catalogue._publish()
    with pytest.raises(CatalogueCorrupt, match="1 arrays, not 2"):
        read(medium)


@pytest.mark.parametrize(
    "form", ["", "5", "[5]", '[["x"],"C",1]', '[[1],"X",1]', '[[-1],"C",1]', "[" * 100_000]
)
def test_an_entry_that_makes_no_sense_is_a_typed_error(form):
    with pytest.raises(CatalogueCorrupt, match="'a' makes no sense"):
        parse("a", (32768, 8, form))


def test_a_superblock_knows_its_damage():
    with pytest.raises(CatalogueCorrupt, match="no superblock"):
        Layout.unpack(bytes(LAYOUT_SIZE))
    layout = bytearray(Layout.plan(POOL_SIZE, POOL_ID).pack())
    layout[30] ^= 1
    with pytest.raises(CatalogueCorrupt, match="damaged"):
        Layout.unpack(bytes(layout))


# --- crashes ---

#: What a session of the model does: (verb, name, length).
operations = st.lists(
    st.tuples(
        st.sampled_from(["create", "many", "remove", "write", "rename", "attrs", "anew"]),
        st.sampled_from(["a", "b", "c", "d"]),
        st.integers(0, 9000),
    ),
    min_size=1,
    max_size=12,
)
crashes = st.lists(
    st.tuples(st.integers(0, 60), st.booleans(), st.integers(0, 2**32)), min_size=1, max_size=4
)


class Story:
    """Sessions of operations, each ended by a crash, checked against a model after each."""

    def __init__(self, kind: type[Catalogue], filling: int = 0xEE) -> None:
        self.kind = kind
        self.medium, self.catalogue = fresh(kind, filling)
        self.acknowledged: dict[str, bytes] = {}  # name -> contents that must be there
        self.pending: dict[str, bytes] | None = None  # what it may be instead after a crash

    def run(self, script: list[tuple[str, str, int]]) -> None:
        for verb, name, length in script:
            getattr(self, verb)(name, length)

    def create(self, name: str, length: int) -> None:
        if name in self.acknowledged:
            return
        self.pending = {**self.acknowledged, name: bytes(length)}
        try:
            put(self.catalogue, name, length)
        except PoolFull:
            self.pending = None
            return
        self.settle()

    def remove(self, name: str, _: int) -> None:
        if name not in self.acknowledged:
            return
        self.pending = {key: value for key, value in self.acknowledged.items() if key != name}
        self.catalogue.remove(name)
        self.settle()

    def many(self, name: str, length: int) -> None:
        names = [f"{name}{index}" for index in range(3)]
        if set(names) & self.acknowledged.keys():
            return
        self.pending = {**self.acknowledged, **dict.fromkeys(names, bytes(length))}
        try:
            self.catalogue.create_all(wanted(names, length))
        except PoolFull:
            self.pending = None
            return
        self.settle()

    def rename(self, name: str, _: int) -> None:
        if name not in self.acknowledged or "renamed" in self.acknowledged:
            return
        self.pending = {
            "renamed" if key == name else key: value for key, value in self.acknowledged.items()
        }
        self.catalogue.rename(name, "renamed")
        self.settle()

    def attrs(self, name: str, number: int) -> None:
        """Attributes are kept beside the arrays; nothing else may change with them."""
        if name in self.acknowledged:
            self.pending = dict(self.acknowledged)
            self.catalogue.set_attrs(name, f'{{"number":{number}}}')
            self.settle()

    def anew(self, name: str, _: int) -> None:
        self.pending = dict(self.acknowledged)
        self.catalogue._write_anew(0)
        self.settle()

    def write(self, name: str, fill: int) -> None:
        """Write and persist an array, as a user does; it is acknowledged when this returns."""
        if name not in self.acknowledged:
            return
        entry = self.catalogue.find(name)
        contents = bytes([fill % 255 + 1]) * entry.length
        self.medium.write(entry.offset, contents)
        self.medium.copy(self.medium.durable, entry.offset, entry.length)
        self.medium.copy(self.medium.remote, entry.offset, entry.length)
        self.acknowledged[name] = contents

    def settle(self) -> None:
        assert self.pending is not None
        self.acknowledged, self.pending = self.pending, None

    def recover(self) -> None:
        """Old or new, never anything else; with all contents."""
        self.catalogue = read(self.medium, self.kind)
        # As Pool.open does after a crash: everything is sent, and then the copies are relied upon.
        self.medium.remote[:] = self.medium.seen
        self.catalogue.settle(self.medium)
        found = self.contents(self.medium, self.catalogue)
        assert found in (self.acknowledged, self.pending)
        self.acknowledged, self.pending = found, None
        assert self.contents(self.medium, reload(self.medium, self.kind)) == found
        self.check_replica()

    def check_replica(self) -> None:
        replica = remote_view(self.medium)
        assert self.contents(replica, reload(replica, self.kind)) in (
            self.acknowledged,
            self.pending,
        )

    @staticmethod
    def contents(medium: CrashMedium, catalogue: Catalogue) -> dict[str, bytes]:
        return {
            name: medium.load(entry.offset, entry.length)
            for name, entry in catalogue.entries.items()
        }


def tell(kind, sessions, ends, filling: int = 0xEE) -> None:
    """Run the sessions; each ends by a crash in the middle, or right after its last operation."""
    story = Story(kind, filling)
    for script, (fuse, power, seed) in zip(sessions, ends, strict=False):
        story.medium.arm(fuse, seed)
        with suppress(Crashed):
            story.run(script)
        story.check_replica()
        if power:
            story.medium.power_cut(seed)
        else:
            story.medium.kill()
        story.recover()


@given(st.lists(operations, min_size=1, max_size=4), crashes, st.sampled_from([0, 0xEE]))
@settings(max_examples=400, deadline=None)
def test_a_crash_anywhere_leaves_the_old_or_the_new_catalogue(sessions, ends, filling):
    tell(Catalogue, sessions, ends, filling)


@pytest.mark.parametrize("filling", [0, 0xEE])
def test_every_prefix_of_every_change_with_many_torn_subsets(filling):
    """Exhaustive where hypothesis samples: each event of a fixed story, 24 ways to tear it."""
    script = [
        ("create", "a", 100), ("write", "a", 5), ("create", "b", 5000), ("write", "b", 9),
        ("remove", "a", 0), ("create", "c", 100), ("anew", "", 0), ("remove", "b", 0),
        ("many", "d", 64), ("rename", "c", 0), ("attrs", "d1", 7), ("create", "d", 4096),
    ]  # fmt: skip
    whole = Story(Catalogue, filling)
    start = whole.medium.events
    whole.run(script)
    for fuse in range(whole.medium.events - start + 1):
        for seed in range(24):
            ends = [(fuse, seed % 2 == 0, seed), (60, True, seed)]
            tell(Catalogue, [script, script], ends, filling)


def about_to_grow() -> tuple[CrashMedium, Catalogue, str]:
    """Return a catalogue with no room for attributes of the array of that name in its log."""
    medium, catalogue = fresh(filling=0xEE)
    names = [f"{index:02}" for index in range(40)]
    catalogue.create_all(wanted(names, 1))
    for name in names:
        if catalogue._log.lacks(len(records.attrs(name, ATTRS)) + catalogue._contents.reserve):
            return medium, catalogue, name
        catalogue.set_attrs(name, ATTRS)
    raise AssertionError


ATTRS = '{"unit":"K","title":"a temperature, measured in the shade"}'


def test_a_short_change_that_begins_an_extent_is_there_or_not():
    """The link to it is nowhere but in the log."""
    _, catalogue, name = about_to_grow()
    catalogue.set_attrs(name, ATTRS)
    assert len(catalogue.spans) == 2
    for fuse, seed in itertools.product(range(10), range(24)):
        medium, catalogue, name = about_to_grow()
        medium.arm(fuse, seed)
        with suppress(Crashed):
            catalogue.set_attrs(name, ATTRS)
        assert reload(remote_view(medium)).attrs_of(name) in ("{}", ATTRS)
        medium.power_cut(seed)
        assert reload(medium).attrs_of(name) in ("{}", ATTRS)


def test_a_root_brings_a_copy_of_what_its_slot_has_room_for():
    medium, catalogue = fresh(size=1 << 20)
    room = catalogue._layout.slot_size - ROOT_SIZE
    catalogue.create_all(wanted([f"{index:0250}" for index in range(40)], 1))  # a large extent
    text = "x" * (room - len(records.attrs("", "")))
    for more, copied in [(0, room), (7, room), (8, 0)]:
        extents = len(catalogue.spans)
        catalogue.set_attrs(None, text + "x" * more)
        assert len(catalogue._root.record) == copied
        assert len(catalogue.spans) == extents
        assert reload(medium).attrs_of(None) == text + "x" * more
        assert reload(remote_view(medium)).attrs_of(None) == text + "x" * more


def test_nothing_is_stored_above_the_mark_before_that_is_moved_everywhere():
    """Not even within an extent of the log that begins below it."""
    medium, catalogue = fresh(size=1 << 20)
    names = [f"{index:02}" for index in range(60)]
    catalogue.create_all(wanted(names, 1))
    put(catalogue, "last", PAGE_ALIGNMENT + 1)
    catalogue.remove("last")
    layout = catalogue._layout

    def store(offset: int, data: bytes) -> None:
        for image in (medium.durable, medium.remote):
            view = CrashMedium(len(image))
            view.seen[:] = image
            mark = read_slots(view, layout, clean=False, where=None).root.mark
            assert offset + len(data) <= mark
        medium.write(offset, data)

    medium.store = store
    for name in names:
        begin, end = catalogue.spans[-1]
        mark, before = catalogue._root.mark, catalogue._log.end
        catalogue.set_attrs(name, ATTRS)
        if begin < before <= mark < catalogue._log.end <= end:
            assert catalogue._root.mark >= catalogue._log.end
            return
    raise AssertionError("no extent lies on both sides of the mark")


# --- negative controls: the model must see each of these ---


class Without:
    """A medium that leaves some of the calls out."""

    def __init__(self, medium, **instead):
        self._medium = medium
        self.__dict__.update(instead)

    def __getattr__(self, name):
        return getattr(self._medium, name)


class ForgetsToFlush(Catalogue):
    """Moves the root without making it durable."""

    def _publish(self, *arguments, **keywords):
        whole = self._medium
        self._medium = Without(whole, spread=lambda ranges: None)
        super()._publish(*arguments, **keywords)
        self._medium = whole


class OverwritesItself(Catalogue):
    """Writes the new root over the one that is in use."""

    def _publish(self, *arguments, **keywords):
        self._slot = 1 - self._slot
        super()._publish(*arguments, **keywords)


class MovesTheRootFirst(Catalogue):
    """Lets a record count before it is durable."""

    def _store(self, writes, end, zeros=()):
        whole = self._medium
        self._medium = Without(whole, spread=lambda ranges: None)
        super()._store(writes, end, zeros)
        self._medium = whole


class BelievesTheLog(Catalogue):
    """Takes the last record from the log, where it may not be yet."""

    @classmethod
    def read(cls, source, layout, **how):
        whole = logs.read
        logs.read = lambda *found, clean, where: whole(*found, clean=True, where=where)
        try:
            return super().read(source, layout, **how)
        finally:
            logs.read = whole


class LeavesTheLogTorn(Catalogue):
    """Goes on behind a record that only the root has."""

    def _settle_record(self, record):
        pass


class MendsTheLogHereOnly(Catalogue):
    """Goes on behind a record that the replica does not have."""

    def _settle_record(self, record):
        whole = self._medium
        self._medium = Without(
            whole, spread=lambda ranges: [whole.persist(*each) for each in ranges]
        )
        super()._settle_record(record)
        self._medium = whole


class BringsNoCopy(Catalogue):
    """Lets root and record become durable together, and only the log has the record."""

    def _publish(self, *arguments, **keywords):
        pack, Root.pack = (
            Root.pack,
            lambda root, key: pack(dataclasses.replace(root, record=b""), key),
        )
        try:
            super()._publish(*arguments, **keywords)
        finally:
            Root.pack = pack


class ForgetsToZero(Catalogue):
    """Publishes an extent that is not zero."""

    def _doubtful(self, spans):
        return []


class TrustsWhatItSees(Catalogue):
    """Relies on a root that a killed writer may not have flushed."""

    def settle(self, medium, *, keeps_zeros=True):
        super().settle(Without(medium, persist=lambda offset, length: None))
        self._medium = medium


class ForgetsTheReplica(Catalogue):
    """Publishes locally only."""

    def __init__(self, medium, *content):
        def spread(ranges):
            for offset, length in ranges:
                medium.persist(offset, length)

        super().__init__(Without(medium, spread=spread), *content)


class ReusesTheLog(Catalogue):
    """Frees the log before the new one counts: what is written next may lie there."""

    def _write_anew(self, more):
        self._spare = self._log.extents[0]
        super()._write_anew(more)


@pytest.mark.parametrize(
    "broken",
    [
        ForgetsToFlush,
        OverwritesItself,
        MovesTheRootFirst,
        ForgetsToZero,
        TrustsWhatItSees,
        ReusesTheLog,
        BelievesTheLog,
        LeavesTheLogTorn,
        MendsTheLogHereOnly,
        BringsNoCopy,
    ],
)
def test_the_model_sees_a_broken_catalogue(broken):
    scripts = [
        [("create", "a", 100), ("write", "a", 5), ("remove", "a", 0), ("create", "b", 100)],
        [("create", "c", 64), ("anew", "", 0), ("remove", "b", 0), ("create", "d", 64)],
        [("create", "a", 64)],
    ]
    caught = 0
    for fuse in range(24):
        for seed in range(60):
            try:
                ends = [
                    (fuse, seed % 3 == 0, seed),
                    ((fuse + seed) % 11, True, seed),
                    (99, True, seed),
                ]
                tell(broken, scripts, ends, seed % 2 * 0xEE)
            except (AssertionError, CatalogueCorrupt):
                caught += 1
    assert caught > 0


def test_the_model_sees_a_forgotten_replica():
    medium, catalogue = fresh(ForgetsTheReplica)
    put(catalogue, "a")
    with pytest.raises(CatalogueCorrupt):
        reload(remote_view(medium))


def test_what_is_found_at_open_is_made_durable_before_it_is_relied_upon():
    """A writer that was killed before its flush leaves what a power cut would take away."""
    medium, catalogue = fresh()
    put(catalogue, "a")
    begin = catalogue._layout.slot_offset(catalogue._slot)
    record = len(catalogue._root.record)
    assert record
    for at, length in [
        (begin, catalogue._root.size),
        (LAYOUT_OFFSET, LAYOUT_SIZE),
        (catalogue._log.end - record, record),
    ]:
        medium.durable[at : at + length] = 0
        assert read(medium).find("a")
        assert not medium.durable[at : at + length].any()
        assert reload(medium).find("a")
        np.testing.assert_array_equal(
            medium.durable[at : at + length], medium.seen[at : at + length]
        )
