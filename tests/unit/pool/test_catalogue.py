"""The catalogue against a medium that crashes everywhere.

`CrashMedium` keeps two images: what the process sees, and what has been made durable. At a power
cut every aligned 8-byte word that differs between them is, independently, old or new. At a kill
the process's image survives, durable or not. Replication is modelled the same way: a target
has seen an arbitrary subset of the words that are on their way to it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

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
from rpmem.pool.catalogue import LONGEST_NAME, PAGE_ALIGNMENT, SMALL_ALIGNMENT, Catalogue, Entry
from rpmem.pool.superblock import (
    LAYOUT_OFFSET,
    LAYOUT_SIZE,
    SMALLEST_POOL,
    STATE_OFFSET,
    Layout,
    Phase,
    State,
)

POOL_ID = bytes(range(16))
POOL_SIZE = 64 * 1024
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

    def replicate(self, offset: int, length: int) -> None:
        self.tick(lambda: self.copy(self.remote, offset, length))

    # --- the model ---

    def write(self, offset: int, data: bytes) -> None:
        assert offset + len(data) <= len(self.seen)
        self.seen[offset : offset + len(data)] = np.frombuffer(data, dtype=np.uint8)

    def copy(self, image: np.ndarray, offset: int, length: int) -> None:
        image[offset : offset + length] = self.seen[offset : offset + length]

    def tick(self, event: Callable[[], None]) -> None:
        """Let one event happen; when the fuse ends here, let it happen in part."""
        self.events += 1
        if self.fuse == 0:
            before = self.seen.copy(), self.durable.copy(), self.remote.copy()
            event()
            images = (self.seen, self.durable, self.remote)
            for image, old in zip(images, before, strict=True):
                mix(image, old, self.dice)
            raise Crashed
        self.fuse -= 1
        event()

    def arm(self, fuse: int, seed: int) -> None:
        self.fuse, self.dice = fuse, np.random.default_rng(seed)

    def power_cut(self, seed: int) -> None:
        """Whatever was not made durable is there or not, word by word."""
        mix(self.seen, self.durable, np.random.default_rng(seed))
        self.durable[:] = self.seen
        self.fuse = -1

    def kill(self) -> None:
        """Only the process is gone: what it stored is seen by the next one."""
        self.fuse = -1


def mix(image: np.ndarray, old: np.ndarray, dice: np.random.Generator) -> None:
    """Give every word of `image` its old value with a probability drawn once."""
    share = dice.choice([0.0, 0.1, 0.5, 0.9, 1.0])
    words, old_words = image.view(np.uint64), old.view(np.uint64)
    changed = np.flatnonzero(words != old_words)
    back = changed[dice.random(len(changed)) < share]
    words[back] = old_words[back]


def fresh(kind: type[Catalogue] = Catalogue, filling: int = 0) -> tuple[CrashMedium, Catalogue]:
    medium = CrashMedium(filling=filling)
    return medium, kind.format(medium, Layout.plan(POOL_SIZE, POOL_ID))


def reload(medium: CrashMedium, kind: type[Catalogue] = Catalogue) -> Catalogue:
    catalogue = kind.read(medium, Layout.unpack(medium.load(LAYOUT_OFFSET, LAYOUT_SIZE)))
    catalogue.settle(medium)
    return catalogue


def put(catalogue: Catalogue, name: str, length: int = 100) -> None:
    catalogue.create(name, length, shape=(length,), order="C", dtype="|u1")


def put_many(catalogue: Catalogue) -> None:
    for index in range(1000):
        put(catalogue, f"{index:0200}", 1)


def remote_view(medium: CrashMedium) -> CrashMedium:
    view = CrashMedium()
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
    made = catalogue.create("Größe", 24, shape=(3, 1), order="F", dtype=dtype)
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


def test_no_image_is_longer_than_its_slot():
    _, catalogue = fresh()
    slot = Layout.plan(POOL_SIZE, POOL_ID).slot_size
    longest = 0
    for length in range(slot - 400, slot):
        entry = Entry("x", 0, 64, (), "C", "x" * length)
        try:
            longest = max(longest, len(catalogue._image({"x": entry})))
        except PoolFull:
            break
    assert longest == slot


def test_the_old_superblock_is_gone_before_the_slots_are_cleared():
    medium, _ = fresh(filling=255)
    cleared = []
    medium.zero = lambda offset, length: cleared.append((offset, length))
    Catalogue.format(medium, Layout.plan(POOL_SIZE, POOL_ID))
    assert cleared[0] == (LAYOUT_OFFSET, LAYOUT_SIZE)


def test_a_full_catalogue_refuses_before_it_writes():
    medium, catalogue = fresh()
    with pytest.raises(PoolFull, match="catalogue has no room"):
        put_many(catalogue)
    before, events = list(catalogue.entries), medium.events
    with pytest.raises(PoolFull):
        put(catalogue, "y" * 250, 1)
    assert medium.events == events
    assert list(reload(medium).entries) == before
    catalogue.remove(before[0])
    put(catalogue, "fits again", 1)


def test_a_pool_can_be_too_small():
    Layout.plan(SMALLEST_POOL, POOL_ID)
    with pytest.raises(PoolSetTooSmall, match="not enough"):
        Layout.plan(SMALLEST_POOL - 1, POOL_ID)


# --- damaged media ---


def test_a_damaged_slot_falls_back_and_two_are_an_error():
    medium, catalogue = fresh()
    put(catalogue, "a")
    put(catalogue, "b")
    layout = Layout.unpack(medium.load(LAYOUT_OFFSET, LAYOUT_SIZE))
    active = layout.slot_offset(catalogue._active)
    medium.seen[active + 70] ^= 1
    assert list(Catalogue.read(medium, layout).entries) == ["a"]
    medium.seen[layout.slot_offset(1 - catalogue._active) + 70] ^= 1
    with pytest.raises(CatalogueCorrupt, match="Restore the pool from a replica"):
        reload(medium)


def load_clean(medium: CrashMedium) -> Catalogue:
    layout = Layout.unpack(medium.load(LAYOUT_OFFSET, LAYOUT_SIZE))
    return Catalogue.read(medium, layout, clean=True, where="this copy")


@pytest.mark.parametrize("arrays", [0, 1, 2, 5])
def test_a_copy_that_was_closed_has_both_its_slots(arrays):
    medium, catalogue = fresh()
    for index in range(arrays):
        put(catalogue, f"a{index}")
    assert dict(load_clean(medium).entries) == dict(catalogue.entries)


@pytest.mark.parametrize("newest", [True, False])
@pytest.mark.parametrize("arrays", [1, 2, 5])
@pytest.mark.parametrize("bit", [0, 8 * 8, 8 * 24 + 3, 8 * 40, 8 * 64 + 1])
def test_any_damage_to_a_copy_that_was_closed_is_noticed(arrays, newest, bit):
    """Both were closed: the older slot does not stand in for the newest one."""
    medium, catalogue = fresh()
    for index in range(arrays):
        put(catalogue, f"a{index}")
    slot = catalogue._active if newest else 1 - catalogue._active
    at = catalogue._layout.slot_offset(slot) + bit // 8
    medium.seen[at] ^= 1 << bit % 8
    with pytest.raises(CatalogueCorrupt, match="this copy") as caught:
        load_clean(medium)
    assert "restore the pool from a replica" in str(caught.value)


@pytest.mark.parametrize("filling", ["zeros", "the image before the last two", "what it was"])
def test_a_lost_write_of_the_newest_slot_is_noticed(filling):
    medium, catalogue = fresh()
    put(catalogue, "a")
    layout = catalogue._layout
    begin = layout.slot_offset(catalogue._active)
    end = begin + layout.slot_size
    before = medium.seen[begin:end].copy()
    put(catalogue, "b")
    put(catalogue, "c")
    assert layout.slot_offset(catalogue._active) == begin
    if filling == "zeros":
        medium.seen[begin:end] = 0
    elif filling == "the image before the last two":
        medium.seen[begin:end] = before
        put(catalogue, "d")
    if filling == "what it was":
        assert list(load_clean(medium).entries) == ["a", "b", "c"]
        return
    with pytest.raises(CatalogueCorrupt, match="not what it was when this copy was closed"):
        load_clean(medium)


def tear(medium: CrashMedium, catalogue: Catalogue) -> None:
    """Let a crash leave half of an image in the slot that does not count."""
    layout = catalogue._layout
    image = catalogue._image(dict(catalogue.entries))
    begin = layout.slot_offset(catalogue._inactive())
    half = np.frombuffer(image, np.uint8)[: len(image) // 2]
    medium.seen[begin : begin + len(half)] = half
    medium.durable[:] = medium.remote[:] = medium.seen


def test_a_torn_slot_is_mended_by_who_opens_the_copy_durably_everywhere():
    medium, catalogue = fresh()
    put(catalogue, "a")
    put(catalogue, "b")
    tear(medium, catalogue)
    with pytest.raises(CatalogueCorrupt):
        load_clean(medium)
    assert list(reload(medium).entries) == ["a", "b"]
    medium.power_cut(1)
    for view in (medium, remote_view(medium)):
        assert list(load_clean(view).entries) == ["a", "b"]


def test_looking_mends_nothing():
    medium, catalogue = fresh()
    put(catalogue, "a")
    tear(medium, catalogue)
    events = medium.events
    Catalogue.read(medium, catalogue._layout)
    assert medium.events == events


class OfVersion010(Catalogue):
    """Writes images without the mark, as version 0.1.0 did."""

    def _image(self, entries: dict[str, Entry]) -> bytes:
        image = super()._image(entries)
        header, payload = image[:24] + bytes(8), image[64:]
        return header + self._digest(header, payload) + payload


def test_a_torn_slot_that_version_0_1_0_left_in_a_closed_copy_is_accepted_and_mended():
    medium, catalogue = fresh(OfVersion010)
    put(catalogue, "a")
    put(catalogue, "b")
    medium.seen[catalogue._layout.slot_offset(catalogue._inactive()) + 70] ^= 1
    assert list(load_clean(medium).entries) == ["a", "b"]
    assert list(reload(medium).entries) == ["a", "b"]
    newer = load_clean(medium)
    # From now on it is held to what this version promises, whichever slot is damaged.
    for slot in range(2):
        at = newer._layout.slot_offset(slot) + 70
        medium.seen[at] ^= 1
        with pytest.raises(CatalogueCorrupt):
            load_clean(medium)
        medium.seen[at] ^= 1


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_any_flipped_bit_gives_the_newest_the_previous_or_an_error(data):
    medium, catalogue = fresh()
    put(catalogue, "a")
    put(catalogue, "b")
    layout = Layout.unpack(medium.load(LAYOUT_OFFSET, LAYOUT_SIZE))
    at = data.draw(st.integers(LAYOUT_OFFSET, layout.data_start - 1))
    medium.seen[at] ^= 1 << data.draw(st.integers(0, 7))
    try:
        names = list(reload(medium).entries)
    except CatalogueCorrupt:
        assert at < LAYOUT_OFFSET + LAYOUT_SIZE
    else:
        assert names in (["a", "b"], ["a"])


def test_images_of_another_pool_are_not_valid():
    medium, catalogue = fresh()
    put(catalogue, "a")
    other = Layout.plan(POOL_SIZE, bytes(16))
    with pytest.raises(CatalogueCorrupt):
        Catalogue.read(medium, other)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"[]",
        b'{"arrays":5}',
        b'{"arrays":[5]}',
        b'{"arrays":[{}]}',
        b"[" * 100_000,
        b'{"arrays":[{"name":"a","offset":0,"length":8,"shape":[1],"order":"C","dtype":"f8"}]}',
        b'{"arrays":[{"name":"a","offset":16384,"length":-8,"shape":[1],"order":"C","dtype":1}]}',
        b'{"arrays":[{"name":"a","offset":16384,"length":8,"shape":["x"],"order":"C","dtype":1}]}',
        b'{"arrays":[{"name":"a","offset":16384,"length":8,"shape":[1],"order":"X","dtype":1}]}',
        b'{"arrays":[{"name":"","offset":16384,"length":8,"shape":[1],"order":"C","dtype":1}]}',
        b'{"arrays":[{"name":"a","offset":6553600,"length":9999999999,"shape":[],"order":"C","dtype":0}]}',
    ],
)
def test_a_meaningless_catalogue_with_a_good_checksum_is_a_typed_error(payload):
    medium = CrashMedium(size=1 << 24)
    catalogue = Catalogue.format(medium, Layout.plan(1 << 24, POOL_ID))
    with pytest.raises(CatalogueCorrupt, match="makes no sense"):
        catalogue._parse(payload)


def test_superblock_words_know_their_damage():
    state = State(12345, Phase.OPEN)
    assert State.unpack(state.pack()) == state
    assert state.next(State(20000, Phase.CLEAN)) == State(20001, Phase.OPEN)
    assert STATE_OFFSET % WORD == 0
    for bit in range(64):
        word = bytearray(state.pack())
        word[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CatalogueCorrupt):
            State.unpack(bytes(word))
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
        st.sampled_from(["create", "remove", "write"]),
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

    def __init__(self, kind: type[Catalogue]) -> None:
        self.kind = kind
        self.medium, self.catalogue = fresh(kind, filling=0xEE)
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
        found = self.contents(self.medium, reload(self.medium, self.kind))
        assert found in (self.acknowledged, self.pending)
        self.acknowledged, self.pending = found, None
        self.catalogue = reload(self.medium, self.kind)

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


def tell(kind, sessions, ends) -> None:
    """Run the sessions; each ends by a crash in the middle, or right after its last operation."""
    story = Story(kind)
    for script, (fuse, power, seed) in zip(sessions, ends, strict=False):
        story.medium.arm(fuse, seed)
        try:
            story.run(script)
        except Crashed:
            story.check_replica()
        if power:
            story.medium.power_cut(seed)
        else:
            story.medium.kill()
        story.recover()
        # Opening again sends everything to the replica, as Pool.open does after a crash.
        story.medium.remote[:] = story.medium.seen


@given(st.lists(operations, min_size=1, max_size=4), crashes)
@settings(max_examples=400, deadline=None)
def test_a_crash_anywhere_leaves_the_old_or_the_new_catalogue(sessions, ends):
    tell(Catalogue, sessions, ends)


def test_every_prefix_of_every_change_with_many_torn_subsets():
    """Exhaustive where hypothesis samples: each event of a fixed story, 24 ways to tear it."""
    script = [
        ("create", "a", 100), ("write", "a", 5), ("create", "b", 5000), ("write", "b", 9),
        ("remove", "a", 0), ("create", "c", 100), ("remove", "b", 0), ("create", "d", 4096),
    ]  # fmt: skip
    whole = Story(Catalogue)
    start = whole.medium.events
    whole.run(script)
    for fuse in range(whole.medium.events - start + 1):
        for seed in range(24):
            tell(Catalogue, [script, script], [(fuse, seed % 2 == 0, seed), (60, True, seed)])


# --- negative controls: the model must see each of these ---


class ForgetsToFlush(Catalogue):
    """Publishes without making the image durable."""

    def _publish(self, entries, image=None):
        image = self._image(entries) if image is None else image
        slot = self._inactive()
        self._medium.store(self._layout.slot_offset(slot), image)
        self._active, self._sequence, self._entries = slot, self._sequence + 1, entries


class OverwritesItself(Catalogue):
    """Writes the new image over the one that is in use."""

    def _inactive(self):
        return self._active


class ForgetsToZero(Catalogue):
    """Publishes an extent before its zeros are durable."""

    def _clear(self, offset, length):
        self._medium.zero(offset, length)


class TrustsWhatItSees(Catalogue):
    """Relies on an image that a killed writer may not have flushed."""

    def settle(self, medium):
        self._medium = medium


class ForgetsTheReplica(Catalogue):
    """Publishes locally only."""

    def __init__(self, medium, layout):
        super().__init__(_Unreplicated(medium), layout)


class _Unreplicated:
    def __init__(self, medium):
        self._medium = medium

    def replicate(self, offset, length):
        pass

    def __getattr__(self, name):
        return getattr(self._medium, name)


@pytest.mark.parametrize(
    "broken", [ForgetsToFlush, OverwritesItself, ForgetsToZero, TrustsWhatItSees]
)
def test_the_model_sees_a_broken_catalogue(broken):
    scripts = [
        [("create", "a", 100), ("write", "a", 5), ("remove", "a", 0), ("create", "b", 100)],
        [("create", "c", 64), ("remove", "b", 0), ("create", "d", 64)],
    ]
    caught = 0
    for fuse in range(12):
        for seed in range(60):
            try:
                tell(broken, scripts, [(fuse, seed % 3 == 0, seed), (fuse % 5, True, seed)])
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
    layout = Layout.plan(POOL_SIZE, POOL_ID)
    put(catalogue, "a")
    begin = layout.slot_offset(catalogue._active)
    for at, length in [(begin, layout.slot_size), (LAYOUT_OFFSET, LAYOUT_SIZE)]:
        medium.durable[at : at + length] = 0
        assert Catalogue.read(medium, layout).find("a")
        assert not medium.durable[at : at + length].any()
        assert reload(medium).find("a")
        np.testing.assert_array_equal(
            medium.durable[at : at + length], medium.seen[at : at + length]
        )
