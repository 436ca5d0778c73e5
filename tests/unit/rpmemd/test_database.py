"""The pool set directory: what a name can reach, what is made for an initiator, what is removed."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip(
    "rpmem.memory.region", reason="rpmem.memory.region is not built", exc_type=ImportError
)

from rpmem import errors
from rpmem.files import header
from rpmem.files.header import PoolAttributes
from rpmem.files.poolset import Part, PoolSet, load_any
from rpmem.pool.local import FilePlace
from rpmemd.database import Database, removal_status

SIZE = 2 << 20
ATTRIBUTES = PoolAttributes(signature=b"TESTPOOL", major=1, uuid=b"u" * 16)


@pytest.fixture
def directory(tmp_path):
    """The pool set directory; beside it lies what must not be reached."""
    folder = tmp_path / "sets"
    folder.mkdir()
    return folder


@pytest.fixture
def database(directory):
    return Database(str(directory))


def write_set(folder, name="p.set", count=2, size=SIZE, options=()):
    parts = [Part(size, f"{folder}/{name}-{index}") for index in range(count)]
    text = PoolSet(parts, options=frozenset(options)).format()
    path = Path(folder) / name
    path.write_text(text)
    return path


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*"))


def test_create_open_remove(directory, database):
    write_set(directory)
    with database.create("p.set", 3 * SIZE // 2, ATTRIBUTES) as pool:
        assert pool.size == 2 * SIZE - 4096
        assert pool.created
    with pytest.raises(errors.PoolSetExists):
        database.create("p.set", SIZE, ATTRIBUTES)
    with database.open("p.set") as pool:
        assert pool.attributes.signature == b"TESTPOOL"
        with pytest.raises(errors.PoolSetBusy):
            database.open("p.set")
        with pytest.raises(errors.PoolSetBusy):
            database.remove("p.set")
    with pytest.raises(errors.PoolSetTooSmall):
        database.open("p.set", 2 * SIZE)
    database.remove("p.set")
    assert names(directory) == ["p.set"]
    with pytest.raises(errors.PoolSetNotFound):
        database.open("p.set")


def test_the_directory_must_be_absolute():
    with pytest.raises(errors.ConfigError, match="poolset-dir"):
        Database("pools")


# --- confinement -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/etc/passwd",
        "../out.set",
        "a/../../out.set",
        "a/../in.set",
        "..",
        ".",
        "a\0b",
        "a\nb",
        "x" * 5000,
    ],
)
def test_names_that_leave_the_directory(tmp_path, directory, database, name):
    write_set(tmp_path, "out.set")
    (directory / "a").mkdir()
    for attempt in (
        lambda: database.create(name, SIZE, ATTRIBUTES),
        lambda: database.create(name, SIZE, ATTRIBUTES, parts=1),
        lambda: database.open(name),
        lambda: database.remove(name),
    ):
        with pytest.raises(errors.PoolSetNameRefused):
            attempt()
    assert (tmp_path / "out.set").exists()
    assert names(directory) == ["a"]


@pytest.mark.parametrize("kind", ["file", "folder", "dangling", "chain"])
def test_symbolic_links_that_leave_the_directory(tmp_path, directory, database, kind):
    write_set(tmp_path, "out.set")
    name = "link.set"
    if kind == "file":
        (directory / name).symlink_to(tmp_path / "out.set")
    elif kind == "folder":
        (directory / "link").symlink_to(tmp_path)
        name = "link/out.set"
    elif kind == "dangling":
        (directory / name).symlink_to(tmp_path / "new.set")
    else:
        (directory / "step").symlink_to("..")
        (directory / name).symlink_to("step/out.set")
    before = names(tmp_path)
    for attempt in (
        lambda: database.create(name, SIZE, ATTRIBUTES, parts=2),
        lambda: database.open(name),
        lambda: database.remove(name, pool_set=True),
        lambda: database.remove(name, force=True, pool_set=True),
    ):
        with pytest.raises(errors.PoolSetNameRefused):
            attempt()
    assert names(tmp_path) == before


@pytest.mark.parametrize("beside", ["sets-private", "setsx", "sets.old"])
def test_links_into_a_directory_whose_name_begins_the_same(tmp_path, directory, database, beside):
    (tmp_path / beside).mkdir()
    write_set(tmp_path / beside)
    (directory / "link.set").symlink_to(tmp_path / beside / "p.set")
    (directory / "folder").symlink_to(tmp_path / beside)
    before = names(tmp_path)
    for name in ("link.set", "folder/p.set", "folder/new.set"):
        for attempt in (
            lambda name=name: database.create(name, SIZE, ATTRIBUTES, parts=1),
            lambda name=name: database.open(name),
            lambda name=name: database.remove(name, pool_set=True),
        ):
            with pytest.raises(errors.PoolSetNameRefused):
                attempt()
    assert names(tmp_path) == before


def test_links_inside_the_directory_work(tmp_path, directory, database):
    (directory / "sub").mkdir()
    write_set(directory / "sub")
    (directory / "alias.set").symlink_to("sub/p.set")
    database.create("alias.set", SIZE, ATTRIBUTES).close()
    database.open("sub/p.set").close()
    (tmp_path / "same").symlink_to(directory)
    Database(str(tmp_path / "same")).open("sub/p.set").close()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(
    name=st.lists(st.sampled_from(["..", ".", "", "a", "out.set", "up", "~", "sets"]), max_size=6)
)
def test_no_name_reaches_out(tmp_path, name):
    directory = tmp_path / "sets"
    if not directory.exists():
        directory.mkdir()
        (directory / "a").mkdir()
        (directory / "up").symlink_to("..")
        write_set(tmp_path, "out.set")
    database = Database(str(directory))
    with pytest.raises(errors.PoolSetError):
        database.open("/".join(name))
    with pytest.raises(errors.PoolSetError):
        database.remove("/".join(name), pool_set=True)
    assert (tmp_path / "out.set").exists()


def test_a_part_never_passes_for_a_pool_set_file(tmp_path, directory, database):
    """An initiator chooses a header that reads as a pool set file naming someone else's file."""
    victim = tmp_path / "victim"
    line = f"2M {victim}\n#".encode()
    # The part begins with signature, major, compat, incompat, ro_compat, poolset_uuid, uuid ...
    hostile = (b"\n" + line).ljust(60, b"#")
    attributes = PoolAttributes(
        signature=b"PMEMPOOL",
        major=int.from_bytes(b"SET\n", "little"),
        compat=int.from_bytes(hostile[1:5], "little"),
        incompat=int.from_bytes(b"#   ", "little") & ~header.INCOMPAT_SINGLEHDR,
        user_flags=b"\n" * 16,
        poolset_uuid=b"\n" + line[:15],
    )
    database.create("evil.set", SIZE, attributes, parts=1).close()
    part = directory / "evil.set.part0"
    assert part.read_bytes().startswith(b"PMEMPOOLSET\n")
    # Whatever the rest of the header: let a perfect forgery be there.
    with open(part, "r+b") as file:
        file.write(b"PMEMPOOLSET\n" + line)
    for attempt in (
        lambda: database.create(part.name, SIZE, ATTRIBUTES),
        lambda: database.open(part.name),
        lambda: database.remove(part.name),
    ):
        with pytest.raises(errors.PoolSetMalformed):
            attempt()
    assert not victim.exists()


def test_a_part_that_is_text_to_its_end_is_no_pool_set_file(tmp_path, directory, database):
    """The smallest part there can be, written by an initiator so that all of it would parse."""
    victim = tmp_path / "victim"
    victim.write_bytes(bytes(SIZE))
    text = f"PMEMPOOLSET\n2M {victim}\n".encode()
    forged = directory / "forged.set.part0"
    forged.write_bytes(text + b"#" * (SIZE - len(text)))
    for attempt in (
        lambda: database.create(forged.name, SIZE, ATTRIBUTES),
        lambda: database.open(forged.name),
        lambda: database.remove(forged.name),
        lambda: database.remove(forged.name, pool_set=True),
    ):
        with pytest.raises(errors.PoolSetMalformed, match="too large"):
            attempt()
    database.remove(forged.name, force=True, pool_set=True)
    assert victim.read_bytes() == bytes(SIZE)
    assert forged.exists()
    # One byte less is no part, and may be as long as it likes.
    forged.write_bytes(text + b"#" * (SIZE - len(text) - 1))
    database.create(forged.name, SIZE, ATTRIBUTES).close(remove=True)


# --- pool set files ----------------------------------------------------------------------------


def test_replicas_are_refused(directory, database):
    path = write_set(directory)
    path.write_text(path.read_text() + f"REPLICA\n2M {directory}/other\n")
    for attempt in (
        lambda: database.create("p.set", SIZE, ATTRIBUTES),
        lambda: database.open("p.set"),
        lambda: database.remove("p.set"),
    ):
        with pytest.raises(errors.PoolSetMalformed, match="replicas"):
            attempt()
    path.write_text(path.read_text().replace("REPLICA", "REPLICA node2 x.set\n#"))
    with pytest.raises(errors.PoolSetMalformed, match="replicas"):
        database.open("p.set")


def test_a_locked_pool_set_file_is_busy(directory, database):
    path = write_set(directory)
    with open(path) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(errors.PoolSetBusy):
            database.create("p.set", SIZE, ATTRIBUTES)
    database.create("p.set", SIZE, ATTRIBUTES).close()


def test_missing_and_malformed(directory, database):
    with pytest.raises(errors.PoolSetNotFound):
        database.open("none.set")
    with pytest.raises(errors.PoolSetNotFound):
        database.create("none.set", SIZE, ATTRIBUTES)
    (directory / "bad.set").write_text("PMEMPOOLSET\n2M relative\n")
    with pytest.raises(errors.PoolSetMalformed):
        database.open("bad.set")
    (directory / "folder.set").mkdir()
    os.mkfifo(directory / "fifo.set")
    for name in ("folder.set", "fifo.set"):
        with pytest.raises(errors.PoolSetError):
            database.open(name)


def test_a_plain_file_is_opened_and_never_removed(directory, database):
    write_set(directory, count=1)
    database.create("p.set", SIZE, ATTRIBUTES).close()
    with database.open("p.set-0") as pool:
        assert pool.size == SIZE
    for options in ({}, {"pool_set": True}):
        with pytest.raises(errors.PoolSetMalformed):
            database.remove("p.set-0", **options)
        database.remove("p.set-0", force=True, **options)
        assert names(directory) == ["p.set", "p.set-0"]


# --- made for an initiator ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attributes", "options"),
    [
        (ATTRIBUTES, frozenset()),
        (None, frozenset({"NOHDRS"})),
        (PoolAttributes(), frozenset({"NOHDRS"})),
        (ATTRIBUTES.for_options({"SINGLEHDR"}), frozenset({"SINGLEHDR"})),
    ],
)
@pytest.mark.parametrize("parts", [1, 2, 3, 7])
@pytest.mark.parametrize("size", [1, 4096, SIZE, 3 * SIZE + 1, 7 * SIZE])
def test_a_missing_pool_set_is_made(directory, database, attributes, options, parts, size):
    with database.create("new.set", size, attributes, parts=parts) as pool:
        assert pool.size >= size
        assert pool.size < max(size + 4096 * (2 * parts + 1), SIZE * parts + 1)
        assert len(pool.parts) == parts
    made = load_any(directory / "new.set")
    assert made.options == options
    assert [part.path for part in made.parts] == [
        f"{directory}/new.set.part{index}" for index in range(parts)
    ]
    database.open("new.set", size).close()
    database.remove("new.set", pool_set=True)
    assert names(directory) == []


def test_an_existing_pool_set_is_used_as_it_is(directory, database):
    path = write_set(directory)
    text = path.read_text()
    with database.create("p.set", SIZE, ATTRIBUTES, parts=5) as pool:
        assert len(pool.parts) == 2
        pool.close(remove=True)
    assert path.read_text() == text
    assert names(directory) == ["p.set"]


def test_what_was_made_goes_with_the_pool(directory, database):
    pool = database.create("new.set", SIZE, ATTRIBUTES, parts=2)
    assert names(directory) == ["new.set", "new.set.part0", "new.set.part1"]
    pool.close(remove=True)
    assert names(directory) == []


def test_what_was_made_goes_when_the_pool_cannot_be_created(directory, database):
    (directory / "new.set.part1").write_bytes(b"someone else's")
    with pytest.raises(errors.PoolSetMalformed):
        database.create("new.set", SIZE, ATTRIBUTES, parts=3)
    assert names(directory) == ["new.set.part1"]
    assert (directory / "new.set.part1").read_bytes() == b"someone else's"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (".bash_profile", errors.PoolSetNameRefused),
        (".ssh/config", errors.PoolSetNameRefused),
        ("a b.set", errors.PoolSetError),
        ("a#b.set", errors.PoolSetError),
        ("none/p.set", errors.PoolSetNotFound),
    ],
)
def test_names_that_are_not_made(directory, database, name, kind):
    with pytest.raises(kind):
        database.create(name, SIZE, ATTRIBUTES, parts=1)
    assert names(directory) == []


@pytest.mark.parametrize("parts", [-1, 1025, 1 << 40])
def test_numbers_of_parts_that_are_not_made(directory, database, parts):
    with pytest.raises(errors.UsageError):
        database.create("p.set", SIZE, ATTRIBUTES, parts=parts)
    assert names(directory) == []


# --- removal, and its exit codes ---------------------------------------------------------------


def status(database, name, **options):
    try:
        database.remove(name, **options)
    except errors.PoolSetError as error:
        return removal_status(error, name)
    return 0


def test_a_missing_part_does_not_keep_the_others(directory, database):
    """As PMDK's: what is there goes, the exit status says that something was not."""
    for pool_set in (False, True):
        write_set(directory, count=3)
        database.create("p.set", SIZE, ATTRIBUTES).close()
        (directory / "p.set-1").unlink()
        assert status(database, "p.set", pool_set=pool_set) == errno.ENOENT
        assert names(directory) == ([] if pool_set else ["p.set"])


def test_a_pool_in_use_keeps_its_pool_set_file(directory, database):
    """Nothing else names the parts: without the file, what is acknowledged cannot be found."""
    write_set(directory)
    everything = ["p.set", "p.set-0", "p.set-1"]
    with database.create("p.set", SIZE, ATTRIBUTES):
        database.remove("p.set", force=True, pool_set=True)
        assert names(directory) == everything
        local = FilePlace(directory / "p.set")
        local.remove(force=True, pool_set_too=True)
        assert names(directory) == everything
    database.open("p.set").close()
    database.remove("p.set", force=True, pool_set=True)
    assert names(directory) == []


def test_a_part_in_use_keeps_all_of_them(directory, database):
    write_set(directory, count=3)
    database.create("p.set", SIZE, ATTRIBUTES).close()
    (directory / "p.set-0").unlink()
    with open(directory / "p.set-2") as part:
        fcntl.flock(part, fcntl.LOCK_EX)
        assert status(database, "p.set", pool_set=True) == errno.EWOULDBLOCK
    assert names(directory) == ["p.set", "p.set-1", "p.set-2"]


def test_removal_status(directory, database):
    write_set(directory)
    assert status(database, "none.set") == errno.ENOENT
    assert status(database, "p.set") == errno.ENOENT
    assert status(database, "/p.set") == errno.EBADF
    assert status(database, "../p.set") == errno.EINVAL
    with database.create("p.set", SIZE, ATTRIBUTES):
        assert status(database, "p.set") == errno.EWOULDBLOCK
    (directory / "text").write_text("hello")
    assert status(database, "text") == errno.EINVAL
    assert status(database, "p.set") == 0
    assert names(directory) == ["p.set", "text"]
    assert status(database, "p.set", pool_set=True) == errno.ENOENT
    assert names(directory) == ["text"]
    write_set(directory)
    for name in ("none.set", "text"):
        assert status(database, name, force=True, pool_set=True) == 0
    assert status(database, "/p.set", force=True, pool_set=True) == errno.EBADF
    assert status(database, "../p.set", force=True, pool_set=True) == errno.EINVAL
    assert names(directory) == ["p.set", "text"]
    assert status(database, "p.set", force=True, pool_set=True) == 0
    assert names(directory) == ["text"]


@pytest.mark.parametrize("how", ["close", "remove", "local"])
def test_nobody_begins_a_pool_whose_set_file_is_about_to_go(directory, database, monkeypatch, how):
    """As soon as the parts are gone, somebody may make the same pool again."""
    real, met = os.unlink, []

    def watched(path, *arguments, **named):
        real(path, *arguments, **named)
        if str(path).endswith(".part1") and not met:
            met.append(path)
            with pytest.raises(errors.PoolSetBusy):
                database.create("a.set", SIZE, ATTRIBUTES, parts=2)

    pool = database.create("a.set", SIZE, ATTRIBUTES, parts=2)
    if how != "close":
        pool.close()
    monkeypatch.setattr(os, "unlink", watched)
    if how == "close":
        pool.close(remove=True)
    elif how == "remove":
        database.remove("a.set", pool_set=True)
    else:
        FilePlace(f"{directory}/a.set").remove(pool_set_too=True)
    assert met
    assert names(directory) == []


def test_who_holds_the_set_file_keeps_it_and_is_told_of(directory, database, monkeypatch):
    """Such as a process that is stopped while it tries to create the pool."""
    monkeypatch.setattr("rpmem.files.setfile._PATIENCE_S", 0.05)
    pool = database.create("a.set", SIZE, ATTRIBUTES, parts=2)
    with open(directory / "a.set") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        with pytest.raises(errors.PoolSetBusy, match="locked the pool set file"):
            database.remove("a.set", pool_set=True)
        assert names(directory) == ["a.set", "a.set.part0", "a.set.part1"]
        with pytest.raises(errors.PoolSetBusy, match="locked the pool set file"):
            pool.close(remove=True)
    assert pool.closed
    assert names(directory) == ["a.set"]
    database.create("a.set", SIZE, ATTRIBUTES).close()
