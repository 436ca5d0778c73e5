"""Digests of the units of a range, which two machines compare."""

from __future__ import annotations

import random
import subprocess
import sys

import pytest

from rpmem.errors import ClosedError, RangeError, UsageError
from rpmem.memory.region import Region
from tests.support.without import is_built

if not is_built("rpmem.memory.changes.unit_digests"):
    pytest.skip("rpmem.memory.changes.unit_digests is not built here", allow_module_level=True)

from rpmem.memory.changes.unit_digests import unit_digests

SIZE = 10_000
KEY = b"k" * 32


class Memory:
    """A region of random bytes."""

    def __init__(self, size: int = SIZE) -> None:
        self.bytes = bytearray(random.Random(size).randbytes(size))
        self.region = Region.from_buffer(self.bytes)

    def digests(
        self, offset: int = 0, length: int | None = None, unit: int = 4096, key: bytes = KEY
    ) -> list[bytes]:
        """Return the digests one by one."""
        found = unit_digests(
            self.region, offset, len(self.bytes) if length is None else length, unit, key
        )
        assert len(found) % 12 == 0
        return [found[at : at + 12] for at in range(0, len(found), 12)]


@pytest.mark.parametrize(
    ("length", "unit", "count"),
    [
        (0, 4096, 0),
        (1, 4096, 1),
        (4095, 4096, 1),
        (4096, 4096, 1),
        (4097, 4096, 2),
        (SIZE, 4096, 3),
        (SIZE, 1, SIZE),
        (SIZE, 1 << 63, 1),
        (SIZE, (1 << 64) - 1, 1),
    ],
)
def test_each_unit_has_one_and_the_last_may_be_shorter(length, unit, count):
    assert len(Memory().digests(0, length, unit)) == count


def test_a_digest_is_that_of_the_unit_s_bytes_wherever_they_lie():
    memory = Memory()
    for unit in (7, 64, 241, 4096):
        for offset in (0, 1, 4095):
            found = memory.digests(offset, SIZE - offset, unit)
            for number, digest in enumerate(found):
                begin = offset + number * unit
                alone = Region.from_buffer(bytearray(memory.bytes[begin : begin + unit]))
                length = min(unit, SIZE - begin)
                assert digest == unit_digests(alone, 0, length, unit, KEY)


def test_every_byte_counts_and_only_in_its_own_unit():
    memory = Memory()
    before = memory.digests()
    chance = random.Random(3)
    for at in (0, 4095, 4096, 8191, 8192, SIZE - 1, *(chance.randrange(SIZE) for _ in range(200))):
        bit = 1 << chance.randrange(8)
        memory.bytes[at] ^= bit
        after = memory.digests()
        assert [
            n for n, pair in enumerate(zip(before, after, strict=True)) if len({*pair}) > 1
        ] == [at // 4096]
        memory.bytes[at] ^= bit
    assert memory.digests() == before


def test_all_bytes_of_a_digest_depend_on_the_content_and_the_key():
    memory = Memory()
    digests = [memory.digests(key=bytes([n]) * 32)[0] for n in range(40)]
    digests += [memory.digests(offset, 100)[0] for offset in range(40)]
    for place in range(12):
        assert len({digest[place] for digest in digests}) > 40


def test_other_processes_find_the_same():
    code = (
        "from rpmem.memory.changes.unit_digests import unit_digests\n"
        "from rpmem.memory.region import Region\n"
        "memory = Region.from_buffer(bytearray(range(256)) * 40)\n"
        f"print(unit_digests(memory, 3, 10_001, 4096, {KEY!r}).hex())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    memory = Region.from_buffer(bytearray(range(256)) * 40)
    assert done.stdout.strip() == unit_digests(memory, 3, 10_001, 4096, KEY).hex()


@pytest.mark.parametrize(
    ("offset", "length"), [(0, SIZE + 1), (SIZE, 1), (1, SIZE), (1 << 63, 1), (8, (1 << 64) - 4)]
)
def test_ranges_outside_are_refused(offset, length):
    with pytest.raises(RangeError, match="not inside"):
        Memory().digests(offset, length)


def test_what_makes_no_sense_is_refused():
    memory = Memory()
    with pytest.raises(UsageError):
        memory.digests(unit=0)
    with pytest.raises(UsageError):
        memory.digests(key=b"")
    with pytest.raises(OverflowError):
        memory.digests(-1)
    with pytest.raises(TypeError):
        unit_digests(None, 0, 1, 1, KEY)
    with pytest.raises(TypeError):
        unit_digests(memory.region, 0, 1, 1, "key")
    memory.region.close()
    with pytest.raises(ClosedError):
        memory.digests()
