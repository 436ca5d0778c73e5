"""Slips of a tired hand in the pool: an order of two records, a length, an undo, a default."""

from __future__ import annotations

from tests.mutants import Mutant

_LOCAL = ("tests/unit/pool/test_pool_local.py",)
_POOL = (
    "tests/unit/pool/test_pool_local.py",
    "tests/integration/test_pool.py",
    "tests/unit/pool/test_pool_steps.py",
)
_RECORDED = (
    "tests/unit/pool/test_recorded_pools.py",
    "tests/integration/test_pool.py",
    "tests/unit/pool/test_pool_steps.py",
)
_ARRAYS = ("tests/unit/pool/test_arrays.py",)
_CATALOGUE = ("tests/unit/pool/test_catalogue.py",)
_OPTIONS = ("tests/unit/session/test_session_arguments.py", "tests/unit/pool/test_pool_local.py")

MUTANTS = (
    Mutant(
        "a new pool counts before its catalogue is there",
        "OpenPool.__init__",
        "            catalogue = Catalogue.format(medium, layout, zeroed=parts.zeroed)\n"
        "            copies.found()\n"
        "            parts.copy.publish()\n",
        "            parts.copy.publish()\n"
        "            catalogue = Catalogue.format(medium, layout, zeroed=parts.zeroed)\n"
        "            copies.found()\n",
        ("tests/unit/pool/test_recorded_pools.py", "tests/faults/test_creations.py"),
    ),
    Mutant(
        "a new pool has no epoch",
        "OpenPool.__init__",
        "            copies.found()\n",
        "",
        _RECORDED,
    ),
    Mutant(
        "the level of a pool is that of its best replica",
        "Pool.level",
        "return min(levels",
        "return max(levels",
        ("tests/unit/session/test_levels.py", *_POOL),
    ),
    Mutant(
        "a forked child that leaves a with block ends its parent's pool",
        "OpenPool._leave",
        "if not self._is_forked():",
        "if True:",
        ("tests/integration/test_forked.py",),
    ),
    Mutant(
        "a pull does not ask whether the replica has the same arrays",
        "Pool.pull",
        "            self._check_same_catalogue(replica)\n",
        "",
        (
            "tests/integration/test_pool.py",
            "tests/unit/pool/test_pool_steps.py",
        ),
    ),
    Mutant(
        "the dimensions of a subarray come first",
        "Form.of",
        "dimensions += inner",
        "dimensions = inner + dimensions",
        (*_ARRAYS, *_LOCAL),
    ),
    Mutant(
        "an array larger than any memory is asked for",
        "Form.of",
        "if form.nbytes > _MOST_BYTES:",
        "if False:",
        (*_ARRAYS, *_LOCAL),
    ),
    Mutant(
        "a shape that does not fit its extent is handed out",
        "Form.from_entry",
        "if not agrees:",
        "if False:",
        (*_ARRAYS, *_LOCAL),
    ),
    Mutant(
        "an array in Fortran's order is opened in C's",
        "NamedArrays._view",
        "buffer=anchor, order=order)",
        'buffer=anchor, order="C")',
        (*_ARRAYS, *_LOCAL),
    ),
    Mutant(
        "an array of one page does not begin at a page",
        "alignment_of",
        "if length >= PAGE_ALIGNMENT",
        "if length > PAGE_ALIGNMENT",
        _CATALOGUE,
    ),
    Mutant(
        "an old superblock stands while its slots are cleared",
        "Catalogue.format",
        "        catalogue._clear([(LAYOUT_OFFSET, LAYOUT_SIZE)])\n",
        "",
        _CATALOGUE,
    ),
    Mutant(
        "names are measured in characters",
        "is_name",
        'len(name.encode(errors="replace")) <= LONGEST_NAME',
        "len(name) <= LONGEST_NAME",
        _CATALOGUE,
    ),
    Mutant(
        "a new root has the number of the old one",
        "Journal._publish",
        "sequence=self._root.sequence + 1",
        "sequence=self._root.sequence",
        _CATALOGUE,
    ),
    Mutant(
        "an extent of the log may be outside the data area",
        "_is_inside",
        "return layout.data_start <= offset and offset + length <= layout.pool_size",
        "return True",
        _CATALOGUE,
    ),
    Mutant(
        "a view loses its array when that is renamed",
        "NamedArrays.rename",
        "self._anchors[new] = self._anchors.pop(old)",
        "pass",
        ("tests/unit/pool/test_many_arrays.py",),
    ),
    Mutant(
        "a pull overwrites the catalogue",
        "Pool.pull",
        "if self._arrays.holds_catalogue(offset, length):",
        "if False:",
        _RECORDED,
    ),
    Mutant(
        "files that were there before count as zero",
        "PoolFiles.zeroed",
        "self.created and all(part.draft is not None for part in self.parts)",
        "self.created",
        ("tests/unit/pool/test_many_arrays.py",),
    ),
    Mutant(
        "a target that did not make its files counts as zero",
        "create",
        "copy.zeroed and all(keeper.replica.zeroed for keeper in keepers)",
        "copy.zeroed",
        ("tests/unit/pool/test_many_arrays.py",),
    ),
    Mutant(
        "a creation whose replicas cannot be had leaves its file",
        "create",
        "            copy.close(remove=True)",
        "            copy.close()",
        (
            "tests/integration/test_pool.py",
            "tests/unit/pool/test_pool_steps.py",
        ),
    ),
    Mutant(
        "header and superblock of different pools go together",
        "_read_superblock",
        "if attributes is not None and attributes.poolset_uuid != layout.pool_id:",
        "if False:",
        ("tests/unit/pool/test_pool_local.py",),
    ),
    Mutant(
        "a copy that was cut off is opened",
        "_read_superblock",
        "if layout.pool_size > copy.region.size:",
        "if False:",
        ("tests/unit/pool/test_pool_local.py",),
    ),
    Mutant(
        "replicas that were made beside one that failed stay",
        "connect_all",
        "remove=attributes is not None",
        "remove=attributes is None",
        (
            "tests/integration/test_pool.py",
            "tests/unit/pool/test_pool_steps.py",
            "tests/faults/test_creations.py",
        ),
    ),
    Mutant(
        "a replica that is sent the whole pool gets no superblock",
        "push",
        "    replica.persist(LAYOUT_OFFSET, SLOTS_OFFSET - LAYOUT_OFFSET)\n",
        "",
        _RECORDED,
    ),
    Mutant(
        "no epoch begins without a copy that was let go",
        "Copies._remove",
        "            self.members.begin()\n",
        "            pass\n",
        _POOL,
    ),
    Mutant(
        "a reversed view is read from its lowest byte on",
        "copy_of",
        'begin = array.__array_interface__["data"][0] - low',
        "begin = 0",
        _POOL,
    ),
    Mutant(
        "files may be made that their owner cannot read",
        "mode_of",
        " or value & PRIVATE != PRIVATE",
        "",
        _OPTIONS,
    ),
    Mutant(
        "a pool of no bytes is asked for",
        "size_of",
        "if value <= 0:",
        "if value < 0:",
        _OPTIONS,
    ),
    Mutant(
        "a superblock with its data elsewhere is believed",
        "Layout.unpack",
        "if slots != SLOTS_OFFSET or data_start != layout.slot_offset(SLOT_COUNT):",
        "if slots != SLOTS_OFFSET:",
        _CATALOGUE,
    ),
    Mutant(
        "a replica that is lost while its pool is closed is not told by the command",
        "raise_loss",
        "if replica.failure is not None:",
        "if False:",
        ("tests/integration/test_cli.py",),
    ),
)
