"""Which pools are opened: this version's format, without features that it does not know."""

from __future__ import annotations

import dataclasses

import pytest

import rpmem
from rpmem.errors import CatalogueCorrupt, HeaderError
from rpmem.files.attributes import MAJOR, SIGNATURE, PoolAttributes
from rpmem.pool import resync
from rpmem.pool.superblock import FORMAT, LAYOUT_OFFSET, LAYOUT_SIZE, Layout

LAYOUT = Layout.plan(1 << 20, bytes(range(16)))
SIZE = 2 << 20


def rewritten(path, edit):
    """Change the superblock of a pool on its medium, with a good sum."""
    with path.open("r+b") as file:
        file.seek(LAYOUT_OFFSET)
        content = edit(file.read(LAYOUT_SIZE))
        file.seek(LAYOUT_OFFSET)
        file.write(content)
    return path.read_bytes()


def with_features(**features):
    return lambda content: dataclasses.replace(Layout.unpack(content), **features).pack()


def test_the_format_is_that_of_the_header():
    assert FORMAT == MAJOR == 2
    assert Layout.unpack(LAYOUT.pack()) == LAYOUT


@pytest.mark.parametrize(("major", "remedy"), [(1, r"rpmem 0\.1\.0"), (3, "newer"), (9, "newer")])
def test_another_format_is_refused_by_name(major, remedy):
    content = b"RPMEMSB%d" % major + LAYOUT.pack()[8:]
    with pytest.raises(HeaderError, match=f"has format {major}; .* format 2") as caught:
        Layout.unpack(content, where="here")
    assert caught.match(remedy)
    attributes = PoolAttributes(signature=SIGNATURE, major=major)
    with pytest.raises(HeaderError, match=f"has format {major}; .* format 2"):
        resync.check_format(attributes, "here")


def test_pools_of_other_libraries_have_versions_of_their_own():
    resync.check_format(PoolAttributes(signature=b"PMEMOBJ", major=6), "here")
    resync.check_format(None, "here")
    with pytest.raises(CatalogueCorrupt, match="no superblock"):
        Layout.unpack(b"RPMEMSB?" + LAYOUT.pack()[8:])


@pytest.mark.parametrize("readonly", [False, True])
def test_a_pool_of_format_1_is_refused_and_stays_as_it_is(tmp_path, readonly):
    path = tmp_path / "pool"
    rpmem.Pool.create(path, SIZE).close()
    before = rewritten(path, lambda content: b"RPMEMSB1" + content[8:])
    with pytest.raises(HeaderError, match=r"has format 1.*rpmem 0\.1\.0"):
        rpmem.Pool.open(path, readonly=readonly)
    assert path.read_bytes() == before


def test_a_pool_of_format_1_without_a_header_is_refused(tmp_path):
    """Its superblock lay where the record lies now."""
    file = tmp_path / "pool.set"
    file.write_text(f"PMEMPOOLSET\nOPTION NOHDRS\n2M {tmp_path}/part\n")
    rpmem.Pool.create(file).close()
    part = tmp_path / "part"
    content = part.read_bytes()
    part.write_bytes(content[:4096] + b"RPMEMSB1" + content[4104:])
    for readonly in (False, True):
        with pytest.raises(HeaderError, match="has format 1"):
            rpmem.Pool.open(file, readonly=readonly)


def test_a_header_of_format_1_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("rpmem.pool.assembly.MAJOR", 1)
    path = tmp_path / "pool"
    rpmem.Pool.create(path, SIZE).close()
    monkeypatch.undo()
    before = path.read_bytes()
    with pytest.raises(HeaderError, match="has format 1"):
        rpmem.Pool.open(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("kind", ["incompat", "ro_compat"])
def test_features_that_matter_and_are_not_known_are_refused_by_name(tmp_path, kind):
    path = tmp_path / "pool"
    rpmem.Pool.create(path, SIZE).close()
    before = rewritten(path, with_features(**{kind: 0x40}))
    with pytest.raises(HeaderError, match=rf"does not know \({kind} bits 0x40\)"):
        rpmem.Pool.open(path)
    if kind == "incompat":
        with pytest.raises(HeaderError, match="incompat bits 0x40"):
            rpmem.Pool.open(path, readonly=True)
    else:
        rpmem.Pool.open(path, readonly=True).close()
    assert path.read_bytes() == before


def test_features_that_do_not_matter_are_kept(tmp_path):
    path = tmp_path / "pool"
    rpmem.Pool.create(path, SIZE).close()
    rewritten(path, with_features(compat=5))
    with rpmem.Pool.open(path) as pool:
        pool.array("a", 3)
    assert Layout.unpack(path.read_bytes()[LAYOUT_OFFSET:]).compat == 5


def test_a_replica_of_format_1_is_refused_and_stays_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    local, part = tmp_path / "pool", tmp_path / "run.set.part0"
    rpmem.Pool.create(local, SIZE, "local: run.set", parts=1).close()
    before = rewritten(part, lambda content: b"RPMEMSB1" + content[8:])
    for use in (
        lambda: rpmem.Pool.open(local, "local: run.set"),
        lambda: rpmem.Pool.open(local, "local: run.set", discard="local: run.set"),
        lambda: rpmem.Pool.restore(tmp_path / "again", "local: run.set"),
    ):
        with pytest.raises(HeaderError, match="has format 1"):
            use()
    with rpmem.Pool.open(local, []) as pool, pytest.raises(HeaderError, match="has format 1"):
        pool.attach("local: run.set")
    assert part.read_bytes() == before
    assert not (tmp_path / "again").exists()
