"""Pools on media: those of libpmemobj opened by ours, ours read by pmempool and libpmemobj."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from rpmem import PoolAttributes
from rpmem.errors import HeaderError, PoolSetBusy, PoolSetExists
from rpmem.files import poolset
from rpmem.files.attributes import INCOMPAT_CKSUM_2K, INCOMPAT_SDS, uuid_text
from rpmem.files.header import Header
from rpmem.files.poolfiles import PoolFiles
from rpmem.files.removal import remove_parts
from tests.interop.support.attributes import header_checksum
from tests.interop.support.node import MIB
from tests.interop.support.originals import Originals, info_fields

HEADER = 4096
LAYOUT = b"rpmem-interop"


@dataclass
class Shape:
    """A pool set's options and the sizes of its parts; 0 is a directory of 8 MiB."""

    sizes: Sequence[int]
    options: Sequence[str] = ()
    alone: bool = False  # a file without a pool set

    def __str__(self) -> str:
        kind = "file" if self.alone else "set"
        return "-".join([kind, *(str(size // MIB) for size in self.sizes), *self.options])


SHAPES = [
    Shape([16 * MIB], alone=True),
    Shape([16 * MIB]),
    Shape([8 * MIB, 4 * MIB + 12345, 2 * MIB]),
    Shape([8 * MIB, 4 * MIB], ["SINGLEHDR"]),
    Shape([0], ["SINGLEHDR"]),
]


@dataclass
class Place:
    """A pool of a shape in a folder, and the originals to work on it."""

    originals: Originals
    folder: Path
    shape: Shape
    path: Path = field(init=False)

    def __post_init__(self) -> None:
        self.folder.mkdir()
        if self.shape.alone:
            self.path = self.folder / "part0"
            return
        lines = ["PMEMPOOLSET", *(f"OPTION {option}" for option in self.shape.options)]
        for index, size in enumerate(self.shape.sizes):
            part = self.folder / f"part{index}"
            if size == 0:
                part.mkdir()
            lines.append(f"{size or 8 * MIB} {part}")
        self.path = self.folder / "pool.set"
        self.path.write_text("\n".join(lines) + "\n")

    @property
    def parts(self) -> list[Path]:
        """The files that hold the pool, in order."""
        found: list[Path] = []
        for index in range(len(self.shape.sizes)):
            part = self.folder / f"part{index}"
            found += sorted(part.iterdir()) if part.is_dir() else [part]
        return found

    @property
    def headers(self) -> list[bytes]:
        """The first page of every part that has a header."""
        parts = self.parts[:1] if "SINGLEHDR" in self.shape.options else self.parts
        return [part.read_bytes()[:HEADER] for part in parts]

    def described(self) -> poolset.PoolSet:
        """Return the pool set as ours reads it."""
        if self.shape.alone and not self.path.exists():
            return poolset.single(str(self.path), self.shape.sizes[0])
        return poolset.load_any(self.path)

    def program(self, verb: str, *words: object) -> subprocess.CompletedProcess[str]:
        """Run the libpmemobj program on the pool."""
        return subprocess.run(
            [str(self.originals.programs / "pmemobj_client"), verb, str(self.path)]
            + [str(word) for word in words],
            env=self.originals.environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def do(self, verb: str, *words: object) -> dict[str, Any]:
        """Run the libpmemobj program, which must succeed."""
        result = self.program(verb, *words)
        assert result.stdout, f"{verb}: status {result.returncode}: {result.stderr}"
        answer: dict[str, Any] = json.loads(result.stdout)
        assert answer["ok"], answer
        return answer

    def create_by_original(self, count: int = 5) -> None:
        """Let libpmemobj create the pool and put something into it."""
        if self.shape.alone:
            tool = self.originals.run_pmempool(
                "create", "--layout", LAYOUT.decode(), "-s", "16M", "obj", self.path
            )
            assert tool.returncode == 0, tool.stderr
        else:
            self.do("create")
        self.do("append", count)


@pytest.fixture(params=SHAPES, ids=str)
def place(request: pytest.FixtureRequest, originals: Originals, tmp_path: Path) -> Place:
    return Place(originals, tmp_path / "pool", request.param)


@pytest.fixture
def two_parts(originals: Originals, tmp_path: Path) -> Place:
    return Place(originals, tmp_path / "pool", Shape([8 * MIB, 4 * MIB]))


def contents(pool: PoolFiles) -> bytes:
    with memoryview(pool.region) as view:
        return bytes(view)


class TestOriginalsPools:
    """libpmemobj created it; ours opens it."""

    def test_ours_sees_the_same_pool(self, place: Place) -> None:
        place.create_by_original()
        headers = place.headers
        with PoolFiles.open(place.described()) as pool:
            attributes = pool.attributes
            data = contents(pool)
        assert attributes is not None
        assert attributes.signature == b"PMEMOBJ\0"
        assert attributes.uuid == headers[0][40:56]
        assert attributes.incompat & INCOMPAT_SDS
        assert attributes.incompat & INCOMPAT_CKSUM_2K
        assert data[HEADER : HEADER + len(LAYOUT)] == LAYOUT
        assert len(data) == len(expected_contents(place))
        assert data[HEADER:] == expected_contents(place)[HEADER:]
        assert place.headers == headers
        assert place.do("check")["count"] == 5

    def test_what_ours_writes_is_read_by_libpmemobj(self, place: Place) -> None:
        place.create_by_original(3)
        with PoolFiles.open(place.described()) as pool:
            data = contents(pool)
            with memoryview(pool.region) as view:
                view[HEADER:] = bytes(len(view) - HEADER)
            pool.region.persist(HEADER, pool.size - HEADER)
        assert place.program("check").returncode == 1
        with PoolFiles.open(place.described()) as pool:
            with memoryview(pool.region) as view:
                view[HEADER:] = data[HEADER:]
            pool.region.persist(HEADER, pool.size - HEADER)
        seen = place.do("check")
        assert (seen["count"], seen["consistent"]) == (3, True)

    def test_our_rewritten_headers_are_good(self, place: Place) -> None:
        place.create_by_original(2)
        with PoolFiles.open(place.described()) as pool:
            attributes = pool.attributes
            assert attributes is not None
            pool.set_attributes(attributes)
        assert place.do("check")["consistent"]
        for header in place.headers:
            assert int.from_bytes(header[4088:], "little") == header_checksum(header)

    @pytest.mark.parametrize("feature", ["SHUTDOWN_STATE", "CKSUM_2K"])
    def test_features_switched_off(self, two_parts: Place, feature: str) -> None:
        two_parts.create_by_original(2)
        off = ["SHUTDOWN_STATE"] if feature == "SHUTDOWN_STATE" else ["SHUTDOWN_STATE", feature]
        for name in off:
            tool = two_parts.originals.run_pmempool("feature", "-d", name, two_parts.path)
            assert tool.returncode == 0, tool.stderr
        with PoolFiles.open(two_parts.described()) as pool:
            assert pool.attributes is not None
            wanted = 0 if feature == "CKSUM_2K" else INCOMPAT_CKSUM_2K
            assert pool.attributes.incompat == wanted
            pool.set_attributes(pool.attributes)
        assert two_parts.do("check")["consistent"]

    def test_left_dirty_by_a_killed_program(self, two_parts: Place) -> None:
        two_parts.create_by_original(2)
        assert two_parts.program("die", 3).returncode == -signal.SIGKILL
        assert Header.unpack(two_parts.headers[0]).shutdown_state[16] == 1
        with PoolFiles.open(two_parts.described()):
            pass
        seen = two_parts.do("check")
        assert (seen["count"], seen["consistent"]) == (5, True)

    def test_open_in_both_at_once_is_refused(self, two_parts: Place) -> None:
        two_parts.create_by_original(1)
        with PoolFiles.open(two_parts.described()):
            assert two_parts.program("check").returncode == 1
        process = subprocess.Popen(
            [str(two_parts.originals.programs / "pmemobj_client"), "run", str(two_parts.path)],
            env=two_parts.originals.environment(),
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        process.stdout.readline()
        try:
            with pytest.raises(PoolSetBusy):
                PoolFiles.open(two_parts.described())
        finally:
            process.kill()
            process.communicate()

    def test_ours_does_not_create_over_it(self, place: Place) -> None:
        place.create_by_original(1)
        with pytest.raises(PoolSetExists):
            PoolFiles.create(place.described(), attributes=object_attributes(place))
        assert place.do("check")["consistent"]

    def test_ours_removes_it(self, place: Place) -> None:
        place.create_by_original(1)
        remove_parts(place.described())
        assert place.parts == [] or not any(part.exists() for part in place.parts)

    def test_damage_is_seen_as_pmempool_sees_it(self, two_parts: Place) -> None:
        two_parts.create_by_original(1)
        with two_parts.parts[1].open("r+b") as part:
            part.seek(48)
            part.write(b"?")
        assert two_parts.program("check").returncode == 1
        with pytest.raises(HeaderError):
            PoolFiles.open(two_parts.described())


def object_attributes(place: Place, **changes: Any) -> PoolAttributes:
    """Return attributes as libpmemobj 1.10 would choose them."""
    incompat = INCOMPAT_CKSUM_2K | INCOMPAT_SDS | ("SINGLEHDR" in place.shape.options)
    return PoolAttributes(signature=b"PMEMOBJ", major=6, compat=1, incompat=incompat, **changes)


def expected_contents(place: Place) -> bytes:
    """Put the parts together as libpmemobj maps them."""
    first, *others = (part.read_bytes() for part in place.parts)
    start = 0 if "SINGLEHDR" in place.shape.options else HEADER
    whole = first[: len(first) // HEADER * HEADER]
    for data in others:
        whole += data[start : len(data) // HEADER * HEADER]
    return whole


class TestOurPools:
    """Ours created it; the originals read it."""

    def test_pmempool_reads_every_header(self, place: Place) -> None:
        wanted = object_attributes(place, poolset_uuid=bytes(range(16)))
        with PoolFiles.create(place.described(), attributes=wanted):
            pass
        for part, raw in zip(place.parts, place.headers, strict=False):
            header = Header.unpack(raw)
            # The rest of the pool is empty, which pmempool does not like.
            tool = place.originals.run_pmempool("info", "-f", "obj", part)
            fields = info_fields(tool.stdout)
            assert fields["Signature"] == "PMEMOBJ"
            assert fields["Major"] == "6"
            assert int(fields["Mandatory features"].split()[0], 16) == wanted.incompat
            assert int(fields["Not mandatory features"].split()[0], 16) == 1
            assert fields["Pool set UUID"] == uuid_text(bytes(range(16)))
            assert fields["UUID"] == uuid_text(header.uuid)
            assert fields["Previous part UUID"] == uuid_text(header.prev_part_uuid)
            assert fields["Next part UUID"] == uuid_text(header.next_part_uuid)
            assert fields["Previous replica UUID"] == uuid_text(header.prev_repl_uuid)
            assert fields["Next replica UUID"] == uuid_text(header.next_repl_uuid)
            assert fields["Alignment Descriptor"].endswith("[OK]")
            assert fields["Machine"] == "AMD X86-64"
            assert fields["Last shutdown"] == "clean"
            assert fields["Checksum"].endswith("[OK]")

    def test_libpmemobj_opens_it(self, place: Place, tmp_path: Path) -> None:
        model = Place(place.originals, tmp_path / "model", place.shape)
        model.create_by_original(7)
        with PoolFiles.open(model.described()) as pool:
            data = contents(pool)
            attributes = pool.attributes
        assert attributes is not None
        with PoolFiles.create(place.described(), attributes=attributes) as pool:
            assert pool.size == len(data)
            with memoryview(pool.region) as view:
                view[HEADER:] = data[HEADER:]
            pool.region.persist(HEADER, pool.size - HEADER)
        seen = place.do("check")
        assert (seen["count"], seen["consistent"]) == (7, True)
        place.do("append", 2)
        assert place.do("check")["count"] == 9
        tool = place.originals.run_pmempool("check", "-v", place.path)
        assert tool.returncode == 0, tool.stdout

    def test_while_ours_has_it_open_it_is_dirty(self, two_parts: Place, tmp_path: Path) -> None:
        attributes = object_attributes(two_parts)
        with PoolFiles.create(two_parts.described(), attributes=attributes):
            # pmempool respects the lock, so it is shown a copy.
            shutil.copy(two_parts.parts[0], tmp_path / "copy")
        tool = two_parts.originals.run_pmempool("info", "-f", "obj", tmp_path / "copy")
        assert info_fields(tool.stdout)["Last shutdown"] == "dirty"

    def test_libpmemobj_does_not_create_over_it(self, place: Place) -> None:
        with PoolFiles.create(place.described(), attributes=object_attributes(place)):
            pass
        before = place.headers
        result = place.program("create")
        assert result.returncode == 1
        assert place.headers == before

    def test_pmempool_removes_it(self, place: Place) -> None:
        with PoolFiles.create(place.described(), attributes=object_attributes(place)):
            pass
        tool = place.originals.run_pmempool("rm", place.path)
        assert tool.returncode == 0, tool.stderr
        assert place.parts == [] or not any(part.exists() for part in place.parts)
