"""Pools as files: creation, locks, headers, layout, removal, and what a failure leaves behind."""

from __future__ import annotations

import errno
import fcntl
import functools
import os
import shutil
import signal
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from rpmem.base.values import replace

pytest.importorskip(
    "rpmem.memory.region", reason="rpmem.memory.region is not built", exc_type=ImportError
)

from rpmem import errors
from rpmem.files import header, poolset, redo, shutdown
from rpmem.files.header import Header, PoolAttributes
from rpmem.files.partfile import PartFile
from rpmem.files.poolfiles import LOOKED_AT, PoolFiles
from rpmem.files.poolset import Part, PoolSet
from rpmem.files.removal import remove_parts
from rpmem.memory.region import Region
from tests.support.descriptors import few_descriptors
from tests.support.shadow import map_shadow

MIB = 1 << 20
SIZE = 2 * MIB


def attributes(**changes):
    values = {
        "signature": b"TESTPOOL",
        "major": 3,
        "poolset_uuid": b"s" * 16,
        "uuid": b"u" * 16,
        "next_uuid": b"n" * 16,
        "prev_uuid": b"p" * 16,
        "user_flags": b"f" * 16,
    }
    return PoolAttributes(**(values | changes))


def pool_set(folder, count=3, options=(), size=SIZE):
    parts = [Part(size, f"{folder}/part{index}") for index in range(count)]
    return PoolSet(parts, options=frozenset(options))


def made(folder, **options):
    wanted = pool_set(folder, **options)
    given = None
    if "NOHDRS" not in wanted.options:
        given = attributes().for_options(wanted.options)
    return wanted, given


def names(folder):
    return sorted(path.name for path in Path(folder).iterdir())


@pytest.mark.parametrize("options", [(), ("SINGLEHDR",), ("NOHDRS",)])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_create_and_open(tmp_path, options, count):
    wanted, given = made(tmp_path, options=options, count=count)
    skipped = 0 if options else 4096
    expected = count * SIZE - skipped * (count - 1)
    with PoolFiles.create(wanted, pool_size=expected, attributes=given) as pool:
        assert (pool.size, pool.region.size) == (expected, expected)
        assert pool.created
        assert pool.attributes == given
        with memoryview(pool.region) as view:
            view[4096:4100] = b"data"
            view[expected - 4 :] = b"tail"
            if count > 1:
                view[SIZE : SIZE + 4] = b"next"
        pool.region.persist(0, expected)
    assert pool.closed
    assert [part.fd for part in pool.parts] == [-1] * count
    last = (tmp_path / f"part{count - 1}").read_bytes()
    assert last[-4:] == b"tail"
    if count > 1:
        assert (tmp_path / "part1").read_bytes()[skipped : skipped + 4] == b"next"
    with PoolFiles.open(wanted, pool_size=expected) as pool:
        assert pool.attributes == given
        assert not pool.created
        with memoryview(pool.region) as view:
            assert bytes(view[4096:4100]) == b"data"
            assert bytes(view[-4:]) == b"tail"


def test_a_size_that_is_no_multiple_of_a_page(tmp_path):
    wanted, given = made(tmp_path, size=SIZE + 5000)
    with PoolFiles.create(wanted, attributes=given) as pool:
        assert pool.size == 3 * (SIZE + 4096) - 2 * 4096
    assert (tmp_path / "part1").stat().st_size == SIZE + 5000


def test_zero_uuids_are_filled_in(tmp_path):
    wanted = pool_set(tmp_path)
    sparse = PoolAttributes(signature=b"X", major=1)
    with PoolFiles.create(wanted, attributes=sparse) as pool:
        filled = pool.attributes
    assert any(filled.uuid)
    assert any(filled.poolset_uuid)
    with PoolFiles.open(wanted) as pool:
        assert pool.attributes == filled


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
@pytest.mark.parametrize("mode", [None, 0o640, 0o666])
def test_files_are_private_unless_a_mode_is_given(tmp_path, umask, mode):
    wanted, given = made(tmp_path)
    before = os.umask(umask)
    try:
        named = {} if mode is None else {"mode": mode}
        PoolFiles.create(wanted, attributes=given, **named).close()
    finally:
        os.umask(before)
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in names(tmp_path)}
    assert modes == {mode or 0o600}


def test_blocks_are_allocated(tmp_path):
    wanted, given = made(tmp_path, count=1)
    PoolFiles.create(wanted, attributes=given).close()
    assert (tmp_path / "part0").stat().st_blocks * 512 >= SIZE


def test_locks(tmp_path):
    wanted, given = made(tmp_path)
    pool = PoolFiles.create(wanted, attributes=given)
    for attempt in (
        lambda: PoolFiles.open(wanted),
        lambda: PoolFiles.create(wanted, attributes=given),
        lambda: remove_parts(wanted),
    ):
        with pytest.raises(errors.PoolSetBusy):
            attempt()
    descriptor = os.open(tmp_path / "part2", os.O_RDWR)
    with pytest.raises(BlockingIOError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(descriptor)
    assert names(tmp_path) == ["part0", "part1", "part2"]
    pool.close()
    PoolFiles.open(wanted).close()


def test_locks_are_gone_after_every_failure(tmp_path):
    wanted, given = made(tmp_path)
    PoolFiles.create(wanted, attributes=given).close()
    with _corrupted(tmp_path / "part1"):
        kept = None
        try:
            PoolFiles.open(wanted)
        except errors.HeaderError as error:
            kept = error  # and with it the traceback and its frames
        assert kept is not None
    PoolFiles.open(wanted).close()


class _corrupted:  # noqa: N801
    """Damage one byte of a header for a while."""

    def __init__(self, path, at=40):
        self.path = path
        self.at = at

    def __enter__(self):
        self.before = self.path.read_bytes()
        damaged = bytearray(self.before)
        damaged[self.at] ^= 1
        self.path.write_bytes(damaged)

    def __exit__(self, *_):
        self.path.write_bytes(self.before)


@pytest.mark.parametrize("part", [0, 1, 2])
@pytest.mark.parametrize("at", [0, 24, 40, 56, 72, 200, 2047, 3000, 4095])
def test_a_damaged_header_is_refused(tmp_path, part, at):
    wanted, given = made(tmp_path)
    PoolFiles.create(wanted, attributes=given).close()
    with _corrupted(tmp_path / f"part{part}", at), pytest.raises(errors.HeaderError) as caught:
        PoolFiles.open(wanted)
    assert f"part{part}" in str(caught.value)
    PoolFiles.open(wanted).close()


def test_parts_in_the_wrong_order_are_refused(tmp_path):
    wanted, given = made(tmp_path)
    PoolFiles.create(wanted, attributes=given).close()
    swapped = replace(wanted, parts=[wanted.parts[i] for i in (0, 2, 1)])
    with pytest.raises(errors.HeaderError):
        PoolFiles.open(swapped)
    with pytest.raises(errors.HeaderError):
        PoolFiles.open(replace(wanted, parts=wanted.parts[:2]))


def test_options_must_match_the_header(tmp_path):
    wanted, given = made(tmp_path, count=1)
    PoolFiles.create(wanted, attributes=given).close()
    with pytest.raises(errors.HeaderError):
        PoolFiles.open(replace(wanted, options=frozenset({"SINGLEHDR"})))


@pytest.mark.parametrize(
    ("options", "given"),
    [
        ((), None),
        ((), PoolAttributes()),
        ((), attributes(incompat=1)),
        (("SINGLEHDR",), attributes()),
        (("NOHDRS",), attributes()),
    ],
)
def test_attributes_that_do_not_fit_the_options(tmp_path, options, given):
    with pytest.raises(errors.AttributesRefused):
        PoolFiles.create(pool_set(tmp_path, options=options), attributes=given)
    assert names(tmp_path) == []


def test_more_than_there_is(tmp_path):
    wanted, given = made(tmp_path)
    room = 3 * SIZE - 2 * 4096
    with pytest.raises(errors.PoolSetTooSmall):
        PoolFiles.create(wanted, pool_size=room + 1, attributes=given)
    assert names(tmp_path) == []
    PoolFiles.create(wanted, pool_size=room, attributes=given).close()
    with pytest.raises(errors.PoolSetTooSmall):
        PoolFiles.open(wanted, pool_size=room + 1)
    PoolFiles.open(wanted, pool_size=room).close()


def test_small_parts_are_refused(tmp_path):
    with pytest.raises(errors.PoolSetMalformed, match="2097152"):
        PoolFiles.create(pool_set(tmp_path, size=SIZE - 1), attributes=attributes())
    assert names(tmp_path) == []


# --- what was there before ---------------------------------------------------------------------


def test_an_empty_file_of_the_right_size_is_taken(tmp_path):
    wanted, given = made(tmp_path)
    (tmp_path / "part1").write_bytes(bytes(4096) + b"old" * 1000 + bytes(SIZE - 4096 - 3000))
    inode = (tmp_path / "part1").stat().st_ino
    PoolFiles.create(wanted, attributes=given).close()
    assert (tmp_path / "part1").stat().st_ino == inode
    with PoolFiles.open(wanted) as pool, memoryview(pool.region) as view:
        assert bytes(view[SIZE : SIZE + 3]) == b"old"


def test_a_sparse_file_gets_its_blocks(tmp_path):
    wanted, given = made(tmp_path, count=1)
    with open(tmp_path / "part0", "wb") as file:
        file.truncate(SIZE)
    PoolFiles.create(wanted, attributes=given).close()
    assert (tmp_path / "part0").stat().st_blocks * 512 >= SIZE


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"\1" + bytes(SIZE - 1), errors.PoolSetExists),
        (bytes(4095) + b"\1" + bytes(SIZE - 4096), errors.PoolSetExists),
        (bytes(SIZE + 4096), errors.PoolSetMalformed),
        (b"", errors.PoolSetMalformed),
    ],
)
@pytest.mark.parametrize("part", [0, 2])
def test_other_files_are_refused_and_kept(tmp_path, content, kind, part):
    wanted, given = made(tmp_path)
    (tmp_path / f"part{part}").write_bytes(content)
    with pytest.raises(kind) as caught:
        PoolFiles.create(wanted, attributes=given)
    assert f"part{part}" in str(caught.value)
    assert names(tmp_path) == [f"part{part}"]
    assert (tmp_path / f"part{part}").read_bytes() == content


def test_a_missing_directory(tmp_path):
    wanted = PoolSet([Part(SIZE, f"{tmp_path}/part0"), Part(SIZE, f"{tmp_path}/none/part1")])
    with pytest.raises(errors.PoolSetNotFound):
        PoolFiles.create(wanted, attributes=attributes())
    assert names(tmp_path) == []


def test_no_space_leaves_nothing_behind(tmp_path):
    shm = Path("/dev/shm")
    if not shm.is_dir():
        pytest.skip("there is no /dev/shm")
    room = os.statvfs(shm).f_blocks * os.statvfs(shm).f_frsize
    first = shm / f"rpmem-test-{os.getpid()}.part"
    wanted = PoolSet([Part(SIZE, str(first)), Part(room + (4 << 30), f"{first}1")])
    with pytest.raises(errors.NoSpace) as caught:
        PoolFiles.create(wanted, attributes=attributes())
    assert caught.value.errno == errno.ENOSPC
    assert not list(shm.glob(first.name + "*"))


def test_missing_parts(tmp_path):
    wanted, given = made(tmp_path)
    with pytest.raises(errors.PoolSetNotFound):
        PoolFiles.open(wanted)
    PoolFiles.create(wanted, attributes=given).close()
    (tmp_path / "part1").unlink()
    with pytest.raises(errors.PoolSetNotFound, match="part1"):
        PoolFiles.open(wanted)


def test_directories_and_fifos_are_no_parts(tmp_path):
    os.mkfifo(tmp_path / "part0")
    for attempt in (
        lambda: PoolFiles.create(pool_set(tmp_path), attributes=attributes()),
        lambda: PoolFiles.open(pool_set(tmp_path)),
    ):
        with pytest.raises(errors.PoolSetError):
            attempt()
    assert names(tmp_path) == ["part0"]


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everything")
def test_denied(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(errors.PoolSetDenied):
        PoolFiles.create(pool_set(tmp_path), attributes=attributes())
    tmp_path.chmod(0o700)


@pytest.mark.parametrize("step", ["write_header", "sync", "mapper"])
@pytest.mark.parametrize("nth", [1, 2, 3])
def test_every_failing_step_of_creation_leaves_nothing(tmp_path, monkeypatch, step, nth):
    """Let the nth call of each step fail."""
    owner = PoolFiles if step == "mapper" else PartFile
    original = getattr(owner, step)
    calls = 0

    def failing(*arguments, **named):
        nonlocal calls
        calls += 1
        if calls == nth:
            raise errors.PoolSetError("injected")
        return original(*arguments, **named)

    wanted, given = made(tmp_path)
    (tmp_path / "part2").write_bytes(bytes(SIZE))
    with monkeypatch.context() as patch:
        patch.setattr(owner, step, staticmethod(failing) if step == "mapper" else failing)
        if step == "mapper" and nth > 1:
            PoolFiles.create(wanted, attributes=given).close(remove=True)
        else:
            with pytest.raises(errors.PoolSetError, match="injected"):
                PoolFiles.create(wanted, attributes=given)
    assert names(tmp_path) == ["part2"]
    assert (tmp_path / "part2").read_bytes() == bytes(SIZE)
    PoolFiles.create(wanted, attributes=given).close()


# --- closing and removing ----------------------------------------------------------------------


def test_close_is_refused_while_views_exist(tmp_path):
    wanted, given = made(tmp_path)
    pool = PoolFiles.create(wanted, attributes=given)
    view = memoryview(pool.region)
    with pytest.raises(BufferError):
        pool.close(remove=True)
    with pytest.raises(errors.PoolSetBusy):
        PoolFiles.open(wanted)
    view.release()
    pool.close(remove=True)
    pool.close()
    assert names(tmp_path) == []


def test_removing_a_created_pool_keeps_files_that_were_there(tmp_path):
    wanted, given = made(tmp_path)
    (tmp_path / "part1").write_bytes(bytes(SIZE))
    PoolFiles.create(wanted, attributes=given).close(remove=True)
    assert names(tmp_path) == ["part1"]
    PoolFiles.create(wanted, attributes=given).close()


def test_removing_an_opened_pool(tmp_path):
    wanted, given = made(tmp_path)
    PoolFiles.create(wanted, attributes=given).close()
    PoolFiles.open(wanted).close(remove=True)
    assert names(tmp_path) == []


def test_remove_parts(tmp_path):
    wanted, given = made(tmp_path)
    PoolFiles.create(wanted, attributes=given).close()
    (tmp_path / "part1").unlink()
    with pytest.raises(errors.PoolSetNotFound, match="part1"):
        remove_parts(wanted)
    assert names(tmp_path) == []
    remove_parts(wanted, force=True)


def test_nothing_is_removed_while_one_part_is_in_use(tmp_path):
    wanted, given = made(tmp_path)
    PoolFiles.create(wanted, attributes=given).close()
    (tmp_path / "part0").unlink()
    part = PartFile.open(str(tmp_path / "part2"))
    with pytest.raises(errors.PoolSetBusy):
        remove_parts(wanted)
    assert names(tmp_path) == ["part1", "part2"]
    part.close()


def test_forced_removal_leaves_a_pool_in_use(tmp_path):
    wanted, given = made(tmp_path)
    with PoolFiles.create(wanted, attributes=given):
        remove_parts(wanted, force=True)
        assert names(tmp_path) == ["part0", "part1", "part2"]


# --- other shapes ------------------------------------------------------------------------------


def test_a_plain_file_is_a_pool_of_one_part(tmp_path):
    wanted, given = made(tmp_path, count=1)
    PoolFiles.create(wanted, attributes=given).close()
    found = poolset.load_any(tmp_path / "part0")
    assert [(part.size, part.path) for part in found.parts] == [(SIZE, f"{tmp_path}/part0")]
    with PoolFiles.open(found) as pool:
        assert pool.attributes == given


def test_a_pool_set_file(tmp_path):
    wanted, given = made(tmp_path)
    (tmp_path / "p.set").write_text(wanted.format())
    with PoolFiles.create(poolset.load_any(tmp_path / "p.set"), attributes=given) as pool:
        assert pool.size == wanted.pool_size


def test_directories_as_parts(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    wanted = PoolSet(
        [Part(2 * SIZE, f"{tmp_path}/a"), Part(SIZE, f"{tmp_path}/b")],
        options=frozenset({"SINGLEHDR"}),
    )
    given = attributes(incompat=1)
    with PoolFiles.create(wanted, attributes=given) as pool:
        assert pool.size == 3 * SIZE
    assert names(tmp_path / "a") == ["000000.pmem"]
    with PoolFiles.open(wanted) as pool:
        assert pool.size == 3 * SIZE
    remove_parts(wanted)
    assert names(tmp_path / "a") == []


def test_another_mapper_and_forced_pmem(tmp_path, monkeypatch):
    wanted, given = made(tmp_path)
    monkeypatch.setattr(PoolFiles, "mapper", staticmethod(map_shadow))
    with PoolFiles.create(wanted, attributes=given) as pool:
        assert pool.region.medium == "page"
        with memoryview(pool.region) as view:
            assert bytes(view[:8]) == b"TESTPOOL"
            view[4096:4100] = b"lost"
            view[8192:8196] = b"kept"
        pool.region.persist(8192, 4)
        pool.set_attributes(attributes(signature=b"OTHER"))
        with memoryview(pool.region) as view:
            assert bytes(view[:5]) == b"OTHER"
    forced = functools.partial(Region.map_parts, force_pmem=True)
    monkeypatch.setattr(PoolFiles, "mapper", staticmethod(forced))
    with PoolFiles.open(wanted) as pool:
        assert pool.region.medium == "pmem"
        with memoryview(pool.region) as view:
            assert bytes(view[4096:4100]) == bytes(4)
            assert bytes(view[8192:8196]) == b"kept"


# --- attributes --------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [(), ("SINGLEHDR",)])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_set_attributes(tmp_path, options, count):
    wanted, given = made(tmp_path, options=options, count=count)
    changed = replace(given, uuid=b"U" * 16, poolset_uuid=b"S" * 16, user_flags=b"F" * 16)
    with PoolFiles.create(wanted, attributes=given) as pool:
        pool.set_attributes(changed)
        assert pool.attributes == changed
        with memoryview(pool.region) as view:
            assert Header.unpack(bytes(view[:4096])).attributes == changed
    assert names(tmp_path) == [f"part{index}" for index in range(count)]
    with PoolFiles.open(wanted) as pool:
        assert pool.attributes == changed
    with pytest.raises(errors.ClosedError):
        pool.set_attributes(given)


def test_set_attributes_that_do_not_fit(tmp_path):
    wanted, given = made(tmp_path)
    with PoolFiles.create(wanted, attributes=given) as pool:
        for bad in (PoolAttributes(), attributes(incompat=1)):
            with pytest.raises(errors.AttributesRefused):
                pool.set_attributes(bad)
        assert pool.attributes == given
    without, _ = made(tmp_path / "..", options=("NOHDRS",), count=1)
    with PoolFiles.create(without) as pool:
        assert pool.attributes is None
        with pytest.raises(errors.AttributesRefused):
            pool.set_attributes(given)
        pool.set_attributes(PoolAttributes())
        pool.close(remove=True)


CRASH = textwrap.dedent(
    """
    import os, signal, sys
    from rpmem.files import partfile, poolset
    from rpmem.files.header import PoolAttributes
    from rpmem.files.poolfiles import LOOKED_AT, PoolFiles
    from rpmem.files.poolset import load_any
    nth = int(sys.argv[2])
    calls = 0
    names = ("pwrite", "fdatasync", "fsync", "rename", "unlink")
    real = {name: getattr(os, name) for name in names}

    def dying(name):
        def call(*arguments):
            global calls
            calls += 1
            if calls == nth:
                if name == "pwrite":  # torn, as a power cut would leave it
                    real["pwrite"](arguments[0], arguments[1][:100], arguments[2])
                os.kill(os.getpid(), signal.SIGKILL)
            return real[name](*arguments)
        return call

    with PoolFiles.open(load_any(sys.argv[1])) as pool:
        for name in real:
            setattr(os, name, dying(name))
        changed = PoolAttributes.unpack(bytes.fromhex(sys.argv[3]))
        pool.set_attributes(changed)
        for name in real:
            setattr(os, name, real[name])
    """
)


def test_set_attributes_is_all_or_nothing(tmp_path):
    """Kill the process at every write, torn, until it gets through."""
    wanted, given = made(tmp_path)
    (tmp_path / "p.set").write_text(wanted.format())
    PoolFiles.create(wanted, attributes=given).close()
    outcomes = []
    current = given
    for nth in range(1, 40):
        changed = attributes(uuid=bytes([nth]) * 16, poolset_uuid=bytes([nth]) * 16)
        arguments = [str(tmp_path / "p.set"), str(nth), changed.pack().hex()]
        child = subprocess.run([sys.executable, "-c", CRASH, *arguments], check=False)
        with PoolFiles.open(wanted) as pool:
            seen = pool.attributes
        assert seen in (current, changed)
        outcomes.append(seen == changed)
        current = seen
        assert names(tmp_path) in (
            ["p.set", "part0", "part1", "part2"],
            ["p.set", "part0", "part0.rpmem-redo~", "part1", "part2"],
        )
        if child.returncode == 0:
            break
        assert child.returncode == -signal.SIGKILL
    else:
        pytest.fail("the process never got through")
    assert nth > 6
    assert False in outcomes
    assert outcomes[-1]
    assert True in outcomes[:-1]


def test_the_note_is_durable_before_it_counts_and_before_a_header_changes(tmp_path, monkeypatch):
    wanted, given = made(tmp_path)
    record = []

    def recorded(name, real):
        def call(*arguments, **named):
            place = arguments[0]
            if isinstance(place, int):
                place = os.readlink(f"/proc/self/fd/{place}")
            record.append((name, Path(place).name))
            return real(*arguments, **named)

        return call

    PoolFiles.create(wanted, attributes=given).close()
    with PoolFiles.open(wanted) as pool:
        for name in ("fsync", "fdatasync", "rename", "pwrite", "unlink"):
            monkeypatch.setattr(os, name, recorded(name, getattr(os, name)))
        pool.set_attributes(replace(given, user_flags=b"x" * 16))
        monkeypatch.undo()
    headers = [(call, f"part{n}") for n in range(3) for call in ("pwrite", "fdatasync")]
    assert record == [
        ("fsync", "part0.rpmem-redo~"),
        ("rename", "part0.rpmem-redo~"),
        ("fsync", tmp_path.name),
        *headers,
        ("unlink", "part0.rpmem-redo"),
    ]


def test_a_note_is_as_private_as_its_pool(tmp_path, monkeypatch):
    wanted, given = made(tmp_path)
    modes = []
    real = os.rename
    monkeypatch.setattr(
        os, "rename", lambda *a: (modes.append(stat.S_IMODE(os.stat(a[0]).st_mode)), real(*a))
    )
    for mode in (0o600, 0o660):
        with PoolFiles.create(wanted, attributes=given, mode=mode) as pool:
            pool.set_attributes(replace(given, user_flags=b"x" * 16))
            pool.close(remove=True)
    assert modes == [0o600, 0o660]


def test_a_note_that_could_not_be_written_does_nothing_later(tmp_path, monkeypatch):
    wanted, given = made(tmp_path)
    with PoolFiles.create(wanted, attributes=given) as pool:

        def failing(*_):
            raise errors.PoolSetError("injected")

        monkeypatch.setattr(redo, "sync_directory", failing)
        with pytest.raises(errors.PoolSetError, match="injected"):
            pool.set_attributes(replace(given, user_flags=b"x" * 16))
        monkeypatch.undo()
        assert pool.attributes == given
    assert names(tmp_path) == ["part0", "part1", "part2"]
    with PoolFiles.open(wanted) as pool:
        assert pool.attributes == given


@pytest.mark.parametrize("incompat", [0, header.INCOMPAT_SDS])
@pytest.mark.parametrize("nth", [1, 2, 3])
def test_a_header_that_could_not_be_written_is_written_at_the_next_open(
    tmp_path, monkeypatch, nth, incompat
):
    """All new, though the call failed: part of it is on the medium, and the note has the rest."""
    wanted = pool_set(tmp_path)
    given = attributes(incompat=incompat)
    changed = replace(given, user_flags=b"x" * 16)
    PoolFiles.create(wanted, attributes=given).close()
    real, calls = PartFile.write_header, 0

    def failing(*arguments):
        nonlocal calls
        calls += 1
        if calls == nth:
            raise errors.PoolSetError("injected")
        real(*arguments)

    with PoolFiles.open(wanted) as pool:
        monkeypatch.setattr(PartFile, "write_header", failing)
        with pytest.raises(errors.PoolSetError, match="injected"):
            pool.set_attributes(changed)
        monkeypatch.undo()
    with PoolFiles.look(wanted) as pool:
        assert pool.attributes == changed
    assert "part0.rpmem-redo" in names(tmp_path)
    with PoolFiles.open(wanted) as pool:
        assert pool.attributes == changed
    assert names(tmp_path) == ["part0", "part1", "part2"]


def test_without_the_note_a_crash_would_be_seen(tmp_path):
    """The control of the test above: a header that was half written and no note."""
    wanted, given = made(tmp_path)
    PoolFiles.create(wanted, attributes=given).close()
    with open(tmp_path / "part1", "r+b") as file:
        file.write(b"half a header")
    with pytest.raises(errors.HeaderError):
        PoolFiles.open(wanted)


def test_an_outdated_note_is_thrown_away(tmp_path):
    wanted, given = made(tmp_path)
    PoolFiles.create(wanted, attributes=given).close()
    parts = [PartFile.open(part.path) for part in wanted.parts]
    headers = [Header.unpack(part.read_header()) for part in parts]
    changed = header.with_attributes(headers, attributes(user_flags=b"1" * 16))
    redo._write_note(parts, [each.pack() for each in headers], [each.pack() for each in changed])
    later = header.with_attributes(headers, attributes(user_flags=b"2" * 16))
    for part, content in zip(parts, later, strict=True):
        part.write_header(content.pack())
        part.close()
    with PoolFiles.open(wanted) as pool:
        assert pool.attributes.user_flags == b"2" * 16
    assert names(tmp_path) == ["part0", "part1", "part2"]


@pytest.mark.parametrize("text", [b"", b"short", b"RPMREDO1" + bytes(8192), os.urandom(24592)])
def test_a_damaged_note_is_thrown_away(tmp_path, text):
    wanted, given = made(tmp_path)
    PoolFiles.create(wanted, attributes=given).close()
    (tmp_path / "part0.rpmem-redo").write_bytes(text)
    with PoolFiles.open(wanted) as pool:
        assert pool.attributes == given
    assert names(tmp_path) == ["part0", "part1", "part2"]


def written_note(folder, count=3):
    """Make a pool whose note says that its attributes are to change."""
    wanted, given = made(folder, count=count)
    PoolFiles.create(wanted, attributes=given).close()
    parts = [PartFile.open(part.path) for part in wanted.parts]
    headers = [Header.unpack(part.read_header()) for part in parts]
    changed = header.with_attributes(headers, attributes(user_flags=b"1" * 16))
    redo._write_note(parts, [each.pack() for each in headers], [each.pack() for each in changed])
    return wanted, given, parts


@pytest.mark.parametrize("at", [30, 4096 + 30, 8192 + 30, -1])
def test_a_note_with_a_flipped_bit_is_thrown_away(tmp_path, at):
    wanted, given, parts = written_note(tmp_path)
    for part in parts:
        part.close()
    note = tmp_path / "part0.rpmem-redo"
    text = bytearray(note.read_bytes())
    text[at] ^= 4
    note.write_bytes(text)
    with PoolFiles.open(wanted) as pool:
        assert pool.attributes == given


def test_a_note_of_more_parts_than_there_are_is_not_carried_out(tmp_path):
    _, _, parts = written_note(tmp_path)
    assert len(redo.pending(parts, lambda _: True)) == 3
    assert redo.pending(parts[:2], lambda _: True) == []
    for part in parts:
        part.close()


def test_note_and_draft_go_with_their_pool(tmp_path):
    wanted, given = made(tmp_path)
    PoolFiles.create(wanted, attributes=given).close()
    pool = PoolFiles.open(wanted)
    for name in ("part0.rpmem-redo", "part0.rpmem-redo~"):
        (tmp_path / name).write_bytes(b"cut off")
    pool.close(remove=True)
    assert names(tmp_path) == []


def test_a_look_that_fails_leaves_no_descriptor(tmp_path):
    wanted, given = made(tmp_path)
    PoolFiles.create(wanted, attributes=given).close()
    with open(tmp_path / "part1", "r+b") as file:
        file.write(b"half a header")
    before = os.listdir("/proc/self/fd")
    with pytest.raises(errors.HeaderError):
        PoolFiles.look(wanted)
    assert len(os.listdir("/proc/self/fd")) <= len(before)


# --- unsafe shutdowns --------------------------------------------------------------------------


@pytest.mark.parametrize("cksum_2k", [0, header.INCOMPAT_CKSUM_2K])
def test_the_dirty_mark(tmp_path, cksum_2k):
    wanted = pool_set(tmp_path)
    given = attributes(incompat=header.INCOMPAT_SDS | cksum_2k)

    def state():
        return (tmp_path / "part0").read_bytes()[4024:4088]

    with PoolFiles.create(wanted, attributes=given):
        assert state()[16] == 1
    assert state() == bytes(64)
    with PoolFiles.open(wanted) as pool:
        assert state()[16] == 1
        pool.set_attributes(replace(given, user_flags=b"x" * 16))
        assert state()[16] == 1
    assert state() == bytes(64)
    PoolFiles.open(wanted).close()


def test_a_changed_shutdown_count_is_refused(tmp_path, monkeypatch):

    wanted = pool_set(tmp_path)
    given = attributes(incompat=header.INCOMPAT_SDS)
    count = 5
    monkeypatch.setattr("rpmem.memory.device.device_identity", lambda _: (count, b"NVDIMM-7"))
    pool = PoolFiles.create(wanted, attributes=given)
    pool.region.close()
    for part in pool.parts:
        part.close()
    PoolFiles.open(wanted).close()
    pool = PoolFiles.open(wanted)
    pool.region.close()
    for part in pool.parts:
        part.close()
    count = 6
    with pytest.raises(errors.HeaderError, match="unsafe"):
        PoolFiles.open(wanted)
    count = 5
    PoolFiles.open(wanted).close()
    count = 6
    PoolFiles.open(wanted).close()


def test_who_looks_leaves_the_shutdown_state_as_it_is(tmp_path):
    wanted = pool_set(tmp_path)
    with PoolFiles.create(wanted, attributes=attributes(incompat=header.INCOMPAT_SDS)):
        before = [(tmp_path / name).read_bytes()[:4096] for name in names(tmp_path)]
        PoolFiles.look(wanted).close()
        assert [(tmp_path / name).read_bytes()[:4096] for name in names(tmp_path)] == before


@pytest.mark.parametrize("identity", [b"", b"ab", b"abc", b"abcd", b"NVDIMM-7"])
def test_device_names_are_summed_up_with_one_to_four_zeros_behind_their_end(identity):
    """As PMDK does, whose sum of a text of whole words has a word of zeros, too."""
    text = identity + b"\0"
    text += b"\0" * (4 - len(text) % 4)
    low = high = 0
    for at in range(0, len(text), 4):
        low = (low + int.from_bytes(text[at : at + 4], "little")) % 2**32
        high = (high + low) % 2**32
    assert shutdown._plain_checksum(identity) == high << 32 | low
    word = int.from_bytes(b"abc\0", "little")
    assert shutdown._plain_checksum(b"abc") == 2 * word % 2**32 << 32 | word


# --- the original as judge ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def pmempool():
    """Return PMDK's pmempool: the system's, or the one that ``make peers`` brought."""
    peers = Path(__file__).resolve().parents[3] / "scripts" / "peers"
    folder = subprocess.run(
        [sys.executable, peers, "--print-dir"], capture_output=True, text=True, check=True
    ).stdout.strip()
    program = shutil.which("pmempool") or shutil.which(f"{folder}/bin/pmempool")
    if program is None:
        pytest.skip("pmempool is not here (make peers brings it)")

    def run(*arguments):
        return subprocess.run(
            [program, *map(str, arguments)], capture_output=True, text=True, check=False
        )

    return run


@pytest.mark.parametrize("options", [(), ("SINGLEHDR",)])
def test_pools_of_pmempool(tmp_path, pmempool, options):
    """What the original made opens here; what was changed here satisfies the original."""
    wanted = pool_set(tmp_path, size=8 * MIB, options=options)
    file = tmp_path / "p.set"
    file.write_text(wanted.format())
    assert pmempool("create", "obj", file).returncode == 0
    with PoolFiles.open(poolset.load_any(file)) as pool:
        assert pool.attributes.signature == b"PMEMOBJ\0"
        assert pool.attributes.incompat & header.INCOMPAT_SDS
        pool.set_attributes(replace(pool.attributes, poolset_uuid=b"q" * 16))
        with memoryview(pool.region) as view:
            # The original's layout name area and lanes go on where its first header ends.
            assert any(view[4096:8192])
    result = pmempool("check", "-v", file)
    assert "consistent" in result.stdout, result.stdout + result.stderr


def test_the_originals_locks_are_ours(tmp_path, pmempool):
    wanted, given = made(tmp_path, count=1, size=8 * MIB)
    with PoolFiles.create(wanted, attributes=given):
        result = pmempool("rm", tmp_path / "part0")
        assert result.returncode != 0
        assert names(tmp_path) == ["part0"]


def test_sizes_agree_with_the_pool_set(tmp_path):
    wanted, given = made(tmp_path, count=4, size=3 * MIB + 12345)
    with PoolFiles.create(wanted, attributes=given) as pool:
        assert pool.size == poolset.parse(wanted.format()).pool_size


ATTRIBUTES = PoolAttributes(signature=b"TESTPOOL", major=1, uuid=b"u" * 16)

# --- the disk, and not what the cache says of it -----------------------------------------------


def test_a_beginning_that_cannot_be_read(tmp_path, monkeypatch):
    wanted, given = made(tmp_path)
    PoolFiles.create(wanted, attributes=given).close()

    def broken(*_):
        raise OSError(errno.EIO, "")

    monkeypatch.setattr(os, "pread", broken)
    with pytest.raises(errors.PoolSetError, match=r"part0: cannot be read"):
        PoolFiles.open(wanted, was_closed=lambda beginning: True)


def test_descriptors_that_run_out_leave_nothing(tmp_path):
    """One more each time, until they are enough; then the pool is removed without a spare one."""
    wanted, given = made(tmp_path)
    refusals = []
    for spare in range(20):
        with few_descriptors(spare):
            try:
                pool = PoolFiles.create(wanted, attributes=given)
                break
            except errors.RpmemError as error:
                refusals.append(error.errno)
        assert os.listdir(tmp_path) == []
    assert set(refusals) == {errno.EMFILE}
    assert len(refusals) > 3
    with few_descriptors(0):
        pool.close(remove=True)
    assert os.listdir(tmp_path) == []


@pytest.fixture
def dropped(monkeypatch):
    """Return what was dropped from the cache, as (file name, length), after it was synced."""
    seen, synced = [], set()
    advise, sync = os.posix_fadvise, os.fsync

    def name_of(fd):
        return os.path.basename(os.readlink(f"/proc/self/fd/{fd}"))

    def spy_advise(fd, offset, length, advice):
        assert advice == os.POSIX_FADV_DONTNEED
        assert offset == 0
        seen.append((name_of(fd), length, name_of(fd) in synced))
        advise(fd, offset, length, advice)

    def spy_sync(fd):
        sync(fd)
        synced.add(name_of(fd))

    monkeypatch.setattr(os, "posix_fadvise", spy_advise)
    monkeypatch.setattr(os, "fsync", spy_sync)
    return seen


def two_parts(tmp_path):
    return PoolSet([Part(2 * MIB, str(tmp_path / name)) for name in ("one", "two")])


@pytest.mark.parametrize("was_closed", [None, lambda _: False])
def test_what_a_disk_may_not_have_is_not_believed(tmp_path, dropped, was_closed):
    PoolFiles.create(two_parts(tmp_path), attributes=ATTRIBUTES).close()
    dropped.clear()
    with PoolFiles.open(two_parts(tmp_path), was_closed=was_closed):
        assert dropped[-2:] == [("one", 0, True), ("two", 0, True)]


def test_a_pool_that_was_closed_keeps_its_cache_but_where_it_says_so(tmp_path, dropped):
    PoolFiles.create(two_parts(tmp_path), attributes=ATTRIBUTES).close()
    dropped.clear()
    asked = []
    with PoolFiles.open(two_parts(tmp_path), was_closed=lambda data: not asked.append(data)):
        assert dropped == [("one", LOOKED_AT, True)]
        assert asked == [(tmp_path / "one").read_bytes()[:LOOKED_AT]]


def test_a_pool_whose_medium_refused_leaves_nothing_in_the_cache(tmp_path, dropped):
    pool = PoolFiles.create(two_parts(tmp_path), attributes=ATTRIBUTES)
    pool.region.refuse(5)
    dropped.clear()
    pool.close()
    # By the names that they were made under.
    assert [(name[1:4], length) for name, length, _ in dropped] == [("one", 0), ("two", 0)]


def test_headers_that_are_not_taken_spoil_the_region_of_the_same_file(tmp_path, monkeypatch):
    """fsync tells of every page of a file, and tells it once."""
    pool = PoolFiles.create(two_parts(tmp_path), attributes=ATTRIBUTES)

    def refusing(fd):
        raise OSError(errno.EIO, "Input/output error")

    pool.region.persist(8192, 8)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refusing)
        with pytest.raises(errors.PoolSetError):
            pool.set_attributes(replace(ATTRIBUTES, user_flags=bytes(range(16))))
    with pytest.raises(errors.FlushFailed):
        pool.region.persist(8192, 8)
    pool.close()
