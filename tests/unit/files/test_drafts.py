"""Files under hidden names: who gets the name, what is durable when, what is left and cleared."""

from __future__ import annotations

import fcntl
import os
import stat

import pytest

from rpmem import errors
from rpmem.base import remedies
from rpmem.files import drafts
from rpmem.files.drafts import Draft, clear, publish, sweep
from rpmem.files.poolset import load_any
from rpmem.files.setfile import SetFile
from tests.support.descriptors import few_descriptors


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "file")


def made(path, content=b"new"):
    draft = Draft(path)
    os.write(draft.fd, content)
    return draft


@pytest.fixture
def calls(monkeypatch):
    """Record links, unlinks and fsyncs of directories, in order."""
    record = []

    def recorded(name, real):
        def call(*arguments, **named):
            result = real(*arguments, **named)
            if name != "fsync":
                record.append((name, os.path.basename(arguments[-1])))
            elif stat.S_ISDIR(os.fstat(arguments[0]).st_mode):
                record.append(("fsync", os.readlink(f"/proc/self/fd/{arguments[0]}")))
            return result

        return call

    for name in ("link", "unlink", "fsync"):
        monkeypatch.setattr(os, name, recorded(name, getattr(os, name)))
    return record


def test_a_draft_has_only_its_hidden_name(path, tmp_path):
    draft = made(path)
    assert not os.path.exists(path)
    assert [stat.S_IMODE(entry.stat().st_mode) for entry in tmp_path.iterdir()] == [0o600]
    publish([draft])
    os.close(draft.fd)
    assert os.listdir(tmp_path) == ["file"]
    assert os.stat(path).st_nlink == 1


def test_a_name_is_never_taken_from_another(path, tmp_path):
    (tmp_path / "file").write_bytes(b"there before")
    draft = made(path)
    with pytest.raises(errors.PoolSetExists):
        publish([draft])
    draft.discard()
    assert os.listdir(tmp_path) == ["file"]
    assert (tmp_path / "file").read_bytes() == b"there before"


def test_every_name_is_durable_before_the_first_one_counts(tmp_path, calls):
    """Hidden names come first; the first file decides, so its own name comes last."""
    folders = [tmp_path / name for name in ("a", "b", "c")]
    for folder in folders:
        folder.mkdir()
    parts = [made(str(folder / f"part-{folder.name}")) for folder in folders]
    publish(parts)
    hidden = [os.path.basename(part.hidden) for part in parts]
    synced = [("fsync", str(folder)) for folder in folders]
    assert calls == [
        *synced[1:],
        ("link", "part-b"),
        ("link", "part-c"),
        *synced,
        ("link", "part-a"),
        synced[0],
        *(("unlink", name) for name in hidden),
        *synced,
    ]
    for part in parts:
        os.close(part.fd)


def test_a_directory_that_cannot_be_synced_is_no_success(path, monkeypatch):
    draft = made(path)
    real = os.fsync

    def failing(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(5, "")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(errors.PoolSetError, match="durable"):
        publish([draft])
    os.close(draft.fd)


def test_undoing_needs_no_descriptor(path, tmp_path, calls):
    """Its own name goes durably first, as ever: the file is closed so that its directory opens."""
    draft = made(path)
    draft.give_name()
    calls.clear()
    with few_descriptors(0):
        draft.discard()
    assert os.listdir(tmp_path) == []
    hidden = os.path.basename(draft.hidden)
    assert calls == [("unlink", "file"), ("fsync", str(tmp_path)), ("unlink", hidden)]


def test_what_cannot_be_undone_durably_does_not_count(path, tmp_path, monkeypatch):
    """Where others take the last descriptor, the hidden name stays, for the next to clear."""
    draft = made(path)
    draft.give_name()
    monkeypatch.setattr(drafts, "sync_directory", starved)
    with pytest.raises(errors.PoolSetError):
        draft.discard()
    assert os.listdir(tmp_path) == [os.path.basename(draft.hidden)]
    sweep(path)
    assert os.listdir(tmp_path) == []


def starved(directory):
    raise remedies.from_oserror(OSError(24, os.strerror(24)), "cannot be synced", where=directory)


def test_what_is_being_made_is_not_cleared(path, tmp_path):
    draft = made(path)
    sweep(path)
    clear([path])
    assert os.path.exists(draft.hidden)
    draft.give_name()
    with pytest.raises(errors.PoolSetBusy):
        clear([path])
    assert sorted(os.listdir(tmp_path)) == sorted([os.path.basename(draft.hidden), "file"])
    os.close(draft.fd)
    clear([path])
    assert os.listdir(tmp_path) == []


def test_who_sweeps_leaves_the_hidden_name_of_what_has_another(path, tmp_path):
    """Until the hidden name is gone it says that the file does not count yet."""
    draft = made(path)
    draft.give_name()
    os.close(draft.fd)
    names = sorted(os.listdir(tmp_path))
    assert len(names) == 2
    sweep(path)
    assert sorted(os.listdir(tmp_path)) == names


def test_a_forked_child_leaves_its_parents_lock_alone(tmp_path):
    path = str(tmp_path / "a.set")
    with SetFile.write(path, TEXT) as file:
        child = os.fork()
        if child == 0:
            file.close()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        with pytest.raises(errors.PoolSetBusy):
            SetFile.hold(path)


def test_a_set_counts_as_soon_as_its_first_file_does(tmp_path):
    paths = [str(tmp_path / name) for name in ("first", "second")]
    parts = [made(path) for path in paths]
    for part in parts:
        part.give_name()
    parts[0].settle()
    for part in parts:
        os.close(part.fd)
    clear(paths)
    assert sorted(name for name in os.listdir(tmp_path) if name[0] != ".") == ["first", "second"]


def test_somebody_who_clears_up_does_not_disturb_who_begins(path, monkeypatch):
    """The hidden file is seen between its creation and its lock, and taken for left behind."""
    real, seen = os.open, []

    def watched(name, flags, *mode, **named):
        descriptor = real(name, flags, *mode, **named)
        if flags & os.O_CREAT and not seen:
            seen.append(name)
            other = real(name, os.O_RDWR)
            fcntl.flock(other, fcntl.LOCK_EX)
            os.unlink(name)
            os.close(other)
        return descriptor

    monkeypatch.setattr(os, "open", watched)
    draft = made(path)
    assert seen
    assert draft.hidden != seen[0]
    publish([draft])
    os.close(draft.fd)
    assert os.path.exists(path)


@pytest.mark.parametrize("length", [1, 238, 239, 240, 255])
def test_long_names(tmp_path, length):
    path = str(tmp_path / ("n" * length))
    draft = made(path)
    os.close(draft.fd)
    sweep(path)
    assert os.listdir(tmp_path) == []
    draft = made(path)
    publish([draft])
    os.close(draft.fd)
    assert os.listdir(tmp_path) == ["n" * length]


def test_no_hard_links(path, monkeypatch):
    def refused(*_):
        raise PermissionError(1, "")

    draft = made(path)
    monkeypatch.setattr(os, "link", refused)
    with pytest.raises(errors.PoolSetDenied, match="hard links"):
        publish([draft])
    draft.discard()


# --- pool set files ---------------------------------------------------------------------------

TEXT = "PMEMPOOLSET\n2M /a\n"


def test_what_a_set_file_says_is_durable_before_it_has_its_name(tmp_path, monkeypatch):
    path = tmp_path / "a.set"
    synced = []
    fsync = os.fsync

    def recorded(descriptor):
        fsync(descriptor)
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            synced.append((path.exists(), os.pread(descriptor, 100, 0).decode()))

    monkeypatch.setattr(os, "fsync", recorded)
    SetFile.write(str(path), TEXT).close()
    assert synced[0] == (False, TEXT)


@pytest.mark.parametrize("spare", range(2))
def test_a_set_file_that_lacks_descriptors_is_not_written(tmp_path, spare):
    path = str(tmp_path / "a.set")
    with few_descriptors(spare), pytest.raises(errors.PoolSetError, match="Too many open files"):
        SetFile.write(path, TEXT)
    assert os.listdir(tmp_path) == []
    with few_descriptors(2):
        SetFile.write(path, TEXT).close()
    assert os.listdir(tmp_path) == ["a.set"]


def test_a_set_file_is_removed_without_descriptors(tmp_path, calls):
    file = SetFile.write(str(tmp_path / "a.set"), TEXT)
    calls.clear()
    with few_descriptors(0):
        file.remove()
    file.close()
    assert os.listdir(tmp_path) == []
    assert calls == [("unlink", "a.set"), ("fsync", str(tmp_path))]


def test_a_set_file_is_whole_and_held_from_the_first_moment(tmp_path, monkeypatch):
    path = str(tmp_path / "a.set")
    real, seen = os.link, []

    def watched(*arguments):
        real(*arguments)
        seen.append((tmp_path / "a.set").read_text())
        with pytest.raises(errors.PoolSetBusy):
            load_any(path)

    monkeypatch.setattr(os, "link", watched)
    with SetFile.write(path, TEXT) as file:
        assert seen == [TEXT]
        with pytest.raises(errors.PoolSetBusy):
            SetFile.hold(path)
        file.release()
        load_any(path)
        file.reserve()
        file.remove()
    assert os.listdir(tmp_path) == []


def test_a_set_file_that_took_its_place_stays(tmp_path):
    path = tmp_path / "a.set"
    with SetFile.write(str(path), TEXT) as file:
        file.release()
        path.rename(tmp_path / "b.set")
        path.write_text("somebody's")
        file.reserve()
        file.remove()
    assert path.read_text() == "somebody's"


def test_a_set_file_in_use_is_not_removed(tmp_path, monkeypatch):
    path = str(tmp_path / "a.set")
    monkeypatch.setattr("rpmem.files.setfile._PATIENCE_S", 0.05)
    with SetFile.write(path, TEXT) as file:
        file.release()
        with SetFile.hold(path), SetFile.hold(path) as second:
            for one in (file, second):
                with pytest.raises(errors.PoolSetBusy):
                    one.reserve()
                with pytest.raises(errors.PoolSetBusy):
                    one.remove()
        assert os.path.exists(path)
        file.reserve()
        file.remove()
    assert not os.path.exists(path)


def test_a_set_file_that_goes_while_it_is_waited_for(tmp_path):
    path = str(tmp_path / "a.set")
    with SetFile.write(path, TEXT) as file:
        file.remove()
        with pytest.raises(errors.PoolSetNotFound):
            SetFile.hold(path)
    assert not drafts._hidden_names(path)
