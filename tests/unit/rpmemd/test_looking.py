"""What rpmemd shows of its pools without opening them, and that showing it changes nothing."""

from __future__ import annotations

import fcntl
import os
import re
from pathlib import Path

import pytest

from rpmem.base.pool_format import POOL_FLOOR, RECORD_OFFSET
from rpmem.control.messages import MAX_LISTED, MAX_PEEK, List, Look, Peek
from rpmem.epochs import change, codec
from rpmem.epochs.record import Epoch, Mark, Stamp
from rpmem.epochs.state import _WORDS, IN_USE
from rpmem.errors import PoolSetError, PoolSetNameRefused, PoolSetNotFound, RangeError
from rpmem.files.attributes import MAJOR, SIGNATURE, PoolAttributes
from rpmemd import listing
from rpmemd.database import Database
from rpmemd.looking import Looker
from tests.support.pages import after, numbers, page, table, ticked

SIZE = 2 << 20
POOL = b"pool of the test"
COPY = b"c" * 16
EPOCH = Epoch(7, b"i" * 16, (COPY,), (COPY,), 1, (Stamp(3, b"h" * 16),))
OURS = PoolAttributes(signature=SIGNATURE, major=MAJOR, poolset_uuid=POOL, uuid=COPY)


@pytest.fixture
def database(tmp_path):
    folder = tmp_path / "sets"
    folder.mkdir()
    return Database(str(folder))


def make(database, name, mark=Mark.CLEAN, *, attributes=OURS, parts=2, word=None):
    """Make a pool with a record of that mark; `word`: what its first bytes say instead."""
    pool = database.create(name, SIZE, attributes, parts=parts)
    if mark is not None:
        record = change.marked(change.first(COPY, EPOCH), mark)
        for offset, data in codec.changes(record, 1, pool_id=POOL):
            pool.region.write(RECORD_OFFSET + offset, data)
    if word is not None:
        pool.region.write(RECORD_OFFSET, word)
    pool.region.write(POOL_FLOOR, b"content")
    pool.region.persist(0, pool.region.size)
    pool.close()


def states(database):
    """Everything about the files that a look must not change."""
    found = {}
    for path in sorted(Path(database.directory).rglob("*")):
        about = path.lstat()
        content = path.read_bytes() if path.is_file() else b""
        found[str(path)] = (content, about.st_mtime_ns, about.st_ctime_ns, about.st_blocks)
    return found


def rows_of(database):
    with Looker(database) as looker:
        rows, last = [], False
        while not last:
            answer = looker.answer(List())
            rows += answer.sets
            last = answer.last
        return {row.name: row for row in rows}


# --- one pool ---


def test_a_look_shows_the_bytes_and_changes_nothing(database):
    make(database, "a.set", word=codec.pack_word(1, settled=False))  # a change was cut off
    before = states(database)
    with Looker(database) as looker:
        seen = looker.answer(Look(pool_set="a.set"))
        assert (seen.writer, seen.attributes[:40]) == (False, OURS.pack()[:40])
        assert seen.pool_size > SIZE // 2
        assert looker.answer(Peek(offset=POOL_FLOOR, length=7)).data == b"content"
        area = looker.answer(Peek(offset=RECORD_OFFSET, length=16384)).data
        found = codec.read(area, pool_id=POOL)
        assert (found.record.epoch, found.settled) == (EPOCH, False)
    assert states(database) == before
    # The control: one who opens it settles the record, and this notices.
    from rpmemd.records import Records

    with database.open("a.set") as pool:
        Records.read(pool.region, POOL)
    assert states(database) != before


def test_it_works_beside_a_writer_and_keeps_none_out(database):
    make(database, "a.set")
    with database.open("a.set") as pool, Looker(database) as looker:
        assert looker.answer(Look(pool_set="a.set")).writer
        pool.region.write(POOL_FLOOR, b"changed")
        content = looker.answer(Peek(offset=POOL_FLOOR, length=7))
        assert (content.data, content.writer) == (b"changed", True)
    with Looker(database) as looker:
        looker.answer(Look(pool_set="a.set"))
        with database.open("a.set"):
            assert looker.answer(Peek(offset=0, length=1)).writer
        assert not looker.answer(Peek(offset=0, length=1)).writer


def test_a_pool_set_file_that_is_locked_is_no_obstacle(database):
    make(database, "a.set")
    with open(f"{database.directory}/a.set") as file, Looker(database) as looker:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert looker.answer(Look(pool_set="a.set")).pool_size
        assert rows_of(database)["a.set"].state == "clean"


def test_files_that_may_only_be_read(database):
    make(database, "a.set")
    for path in Path(database.directory).iterdir():
        path.chmod(0o400)
    flags = set()
    real = os.open

    def noting(path, how, *rest, **more):
        flags.add(how & os.O_ACCMODE)
        return real(path, how, *rest, **more)

    with pytest.MonkeyPatch.context() as patch:
        # As root, everything may be written.
        patch.setattr(os, "open", noting)
        with Looker(database) as looker:
            assert looker.answer(Look(pool_set="a.set")).medium
            assert looker.answer(List()).sets[0].state == "clean"
    assert flags == {os.O_RDONLY}


@pytest.mark.parametrize(
    ("offset", "length"), [(1 << 62, 1), (0, MAX_PEEK), (3 << 20, MAX_PEEK), ((1 << 63) - 1, 1)]
)
def test_nothing_outside_the_pool_is_shown(database, offset, length):
    make(database, "a.set", parts=1)
    with Looker(database) as looker:
        size = looker.answer(Look(pool_set="a.set")).pool_size
        if offset + length > size:
            with pytest.raises(RangeError):
                looker.answer(Peek(offset=offset, length=length))
        else:
            assert len(looker.answer(Peek(offset=offset, length=length)).data) == length
        last = looker.answer(Peek(offset=size - 1, length=1))
        assert len(last.data) == 1
        with pytest.raises(RangeError):
            looker.answer(Peek(offset=size - 1, length=2))


@pytest.mark.parametrize("name", ["../a.set", "/etc/passwd", "", "a\n.set"])
def test_only_what_lies_in_the_directory_can_be_named(database, name):
    with Looker(database) as looker, pytest.raises(PoolSetNameRefused):
        looker._look(name)


def test_nothing_is_shown_of_what_is_not_there(database):
    with Looker(database) as looker, pytest.raises(PoolSetNotFound):
        looker.answer(Look(pool_set="a.set"))


# --- all pool sets ---


@pytest.mark.parametrize(
    ("mark", "state"),
    [
        (Mark.CLEAN, "clean"),
        (Mark.BEGUN, "not-closed"),
        (Mark.LEFT, "left"),
        (Mark.JOINING, "joining"),
    ],
)
def test_a_row_tells_epoch_and_state(database, mark, state):
    make(database, "a.set", mark)
    row = rows_of(database)["a.set"]
    assert (row.state, row.mark, row.reason) == (state, mark.name.lower(), None)
    assert (row.epoch, row.identity, row.copy) == (7, EPOCH.identity, COPY)
    with database.open("a.set") as pool:
        row = rows_of(database)["a.set"]
        assert (row.state, row.mark, row.size) == ("in-use", mark.name.lower(), pool.size)


def test_every_kind_of_trouble_has_a_row(database):
    folder = Path(database.directory)
    make(database, "good.set")
    make(database, "rotten.set", word=b"rotten!!")
    make(database, "empty.set", None)
    make(database, "broken.set")
    (folder / "broken.set.part1").unlink()
    make(database, "torn.set")
    with open(folder / "torn.set.part0", "r+b") as part:
        part.seek(100)
        part.write(b"torn")
    make(database, "other.set", attributes=OURS.replaced(signature=b"TESTPOOL"))
    make(database, "old.set", None, attributes=OURS.replaced(major=1))
    (folder / "nonsense.set").write_text("PMEMPOOLSET\nwhat is this\n")
    (folder / "short.set").write_text(f"PMEMPOOLSET\n1K {folder}/none\n")
    before = states(database)
    rows = rows_of(database)
    assert states(database) == before
    assert {name: row.state for name, row in rows.items()} == {
        "good.set": "clean",
        "rotten.set": "damaged",
        "empty.set": "damaged",
        "broken.set": "missing",
        "torn.set": "damaged",
        "other.set": "foreign",
        "old.set": "foreign",
        "nonsense.set": "damaged",
        "short.set": "damaged",
    }
    assert "word" in rows["rotten.set"].reason
    assert "no record" in rows["empty.set"].reason
    assert "part1" in rows["broken.set"].reason
    assert "format 1" in rows["old.set"].reason
    assert ":2" in rows["nonsense.set"].reason


def test_a_pool_that_is_one_file_is_there_and_a_part_is_not(database):
    make(database, "a.set", parts=2)
    make(database, "lone", parts=1)
    (Path(database.directory) / "lone").unlink()
    os.rename(f"{database.directory}/lone.part0", f"{database.directory}/lone")
    assert {name: row.state for name, row in rows_of(database).items()} == {
        "a.set": "clean",
        "lone": "clean",
    }


def test_what_can_be_named_below_is_found_and_nothing_else(database, tmp_path):
    folder = Path(database.directory)
    (folder / "b" / "c").mkdir(parents=True)
    make(database, "b/c/deep.set")
    (folder / ".hidden").mkdir()
    (folder / ".hidden" / "h.set").write_text("PMEMPOOLSET\n")
    (folder / ".h.set").write_text("PMEMPOOLSET\n")
    (folder / "round").symlink_to(folder)
    (folder / "notes.txt").write_text("not a pool set")
    os.mkfifo(folder / "pipe.set")
    (tmp_path / "outside.set").write_text("PMEMPOOLSET\n")
    (folder / "out.set").symlink_to(tmp_path / "outside.set")
    (folder / "alias.set").symlink_to(folder / "b" / "c" / "deep.set")
    found = {name: row.state for name, row in rows_of(database).items()}
    assert found == {"b/c/deep.set": "clean", "alias.set": "clean", "out.set": "unreadable"}


def test_depth_and_number_are_bounded(database, monkeypatch):
    folder = Path(database.directory)
    below = folder
    for _ in range(listing.MOST_DEPTH):
        (below / "x.set").write_text("PMEMPOOLSET\n")
        below = below / "d"
        below.mkdir()
    (below / "x.set").write_text("PMEMPOOLSET\n")
    assert len(rows_of(database)) == listing.MOST_DEPTH
    monkeypatch.setattr(listing, "MOST_ENTRIES", 5)
    rows = rows_of(database)
    assert "only the first 5" in rows["..."].reason
    assert len(rows) <= 6


def test_pages_are_of_bounded_length_and_come_to_an_end(database):
    folder = Path(database.directory)
    for number in range(2 * MAX_LISTED):
        (folder / f"{number:03}.set").write_text("PMEMPOOLSET\n")
    with Looker(database) as looker:
        pages = [looker.answer(List()) for _ in range(2)]
    assert [len(page.sets) for page in pages] == [MAX_LISTED, MAX_LISTED]
    assert [page.last for page in pages] == [False, True]
    assert len(rows_of(database)) == 2 * MAX_LISTED


def test_a_directory_that_cannot_be_read(database, monkeypatch):
    folder = Path(database.directory)
    (folder / "closed").mkdir()
    make(database, "a.set")
    real = os.scandir

    def refusing(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", refusing)
    rows = rows_of(database)
    assert (rows["closed/"].state, rows["closed/"].reason) == ("unreadable", "Permission denied")
    assert rows["a.set"].state == "clean"
    (folder / "a.set").unlink()
    for path in folder.iterdir():
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()
    with pytest.raises(PoolSetError):
        rows_of(database)


def test_an_empty_directory_has_none(database):
    with Looker(database) as looker:
        answer = looker.answer(List())
    assert (answer.sets, answer.last) == ((), True)


def test_names_that_are_not_printable_are_shown_escaped(database):
    Path(database.directory, "a\x1b[2J.set").write_text("PMEMPOOLSET\n")
    (row,) = rows_of(database).values()
    assert row.name == "a\\x1b[2J.set"
    assert row.state == "unreadable"


def test_the_page_names_every_state_and_bound():
    text = after(page("docs/rpmemd.md"), "## Looking at pools")
    written = {ticked(state)[0] for state, _ in table(text, "state", "")}
    source = Path(listing.__file__).read_text()
    assert written == {
        *_WORDS.values(),
        IN_USE,
        *re.findall(r'state="([a-z-]+)"', source),
        *re.findall(r'else "([a-z-]+)"', source),
    }
    assert numbers(text, r"at most ([\d,]+) files") == (listing.MOST_ENTRIES,)
    assert "eight directories" in " ".join(text.split())
    assert listing.MOST_DEPTH == 8
