"""Mistakes in how the record of a copy is laid out, and changed."""

from __future__ import annotations

from tests.mutants import Mutant

_CODEC = ("tests/unit/epochs/test_codec.py",)

MUTANTS = (
    Mutant(
        "a settled record with two different slots is believed",
        "read",
        "if slots[0] != slots[1]:",
        "if False:",
        _CODEC,
    ),
    Mutant(
        "the older slot counts",
        "read",
        "newest = slots[0] or slots[1]",
        "newest = slots[1] or slots[0]",
        _CODEC,
    ),
    Mutant(
        "slots that no crash explains are believed",
        "read",
        "if None not in slots and slots[1] is not None and sequence - slots[1][1] not in (0, 1):",
        "if False:",
        _CODEC,
    ),
    Mutant(
        "a word that does not belong to its slots is believed",
        "read",
        "if word not in (pack_word(sequence, settled=False), "
        "pack_word(sequence + 1, settled=False)):",
        "if False:",
        _CODEC,
    ),
    Mutant(
        "a slot with a bad checksum is believed",
        "unpack",
        "if _digest(image[:end], pool_id) != image[end : end + _DIGEST_SIZE]:",
        "if False:",
        _CODEC,
    ),
    Mutant(
        "a slot is written before the word says so",
        "changes",
        "    yield 0, pack_word(sequence, settled=False)\n",
        "",
        _CODEC,
    ),
    Mutant(
        "a change writes one slot only",
        "changes",
        "for offset in SLOT_OFFSETS:",
        "for offset in SLOT_OFFSETS[:1]:",
        _CODEC,
    ),
    Mutant(
        "a change never ends",
        "changes",
        "    yield 0, pack_word(sequence, settled=True)\n",
        "",
        _CODEC,
    ),
    Mutant(
        "a record that is made whole is called so first",
        "settling",
        "    for offset in SLOT_OFFSETS:\n"
        "        yield offset, image\n"
        "    yield 0, pack_word(sequence, settled=True)\n",
        "    yield 0, pack_word(sequence, settled=True)\n"
        "    for offset in SLOT_OFFSETS:\n"
        "        yield offset, image\n",
        _CODEC,
    ),
    Mutant(
        "a record of another pool is believed",
        "_digest",
        ", key=pool_id",
        "",
        _CODEC,
    ),
    Mutant(
        "what was offered is not written",
        "_pack_record",
        "        yield from _pack_epoch(record.prepared)\n",
        "        pass\n",
        _CODEC,
    ),
    Mutant(
        "something may follow a record",
        "_Reader.record",
        "if self._at != len(self._data):",
        "if False:",
        _CODEC,
    ),
)
