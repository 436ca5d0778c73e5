"""Files that do not count yet, and unlinking that only removes the file it means.

A file is made under a hidden name next to its final one, ``.NAME.rpmem-XXXXXXXX``, and locked by
its maker. It is finished when it has its final name and the hidden one is gone. So the leftovers of
a killed process can be told from files that count: they are not locked and still have their hidden
names. A set of files counts as soon as its first one does.

Nothing is unlinked here by name alone: the name has to lead to the intended file.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from rpmem import errors
from rpmem.base import remedies
from rpmem.base.handles import Handle
from rpmem.base.hashes import blake2b
from rpmem.files import locks

#: Default permissions of new files: for their owner only.
PRIVATE = 0o600

_HIDDEN = re.compile(r"\.rpmem-[0-9a-f]{8}")
_ATTEMPTS = 100
#: No descriptor is left, in this process or on the machine.
_STARVED = (errno.EMFILE, errno.ENFILE)
_LONGEST_NAME = 255 - len("..rpmem-01234567")


class Draft(Handle):
    """A new, empty and locked file that has only its hidden name.

    Parameters
    ----------
    path : str
        The final name it is to get.
    mode : int
        Its permissions, regardless of the umask.

    Attributes
    ----------
    fd : int
        Descriptor, readable and writable; -1 once closed. The draft's maker closes it, unless the
        draft is discarded.
    hidden : str
        Its hidden name.
    named : bool
        Whether it has its final name as well.

    Raises
    ------
    PoolSetError
        The draft cannot be made; the kind of error says why.
    """

    def __init__(self, path: str, mode: int = PRIVATE) -> None:
        self.path = path
        self.named = False
        for _ in range(_ATTEMPTS):
            self.hidden = _hidden_name(path)
            self.fd = _create(self.hidden, path)
            try:
                locks.lock(self.fd, path)
                if leads_to(self.hidden, self.fd):
                    os.fchmod(self.fd, mode)
                    return
            except errors.PoolSetBusy:
                pass  # a process that clears up is looking at it and takes it for a leftover
            except OSError as error:
                self._give_up()
                raise remedies.from_oserror(error, "cannot be created", where=path) from error
            except BaseException:
                self._give_up()
                raise
            self._give_up()
        raise errors.PoolSetBusy(
            "it cannot be created: other processes keep removing it", where=path
        )

    def give_name(self) -> None:
        """Give the file its final name, unless that name is taken.

        Raises
        ------
        PoolSetExists
            The name is taken; nothing has changed.
        """
        try:
            # link() fails if the name is taken; rename() would replace the existing file.
            os.link(self.hidden, self.path)
        except OSError as error:
            hint = None
            if error.errno in (errno.EPERM, errno.EOPNOTSUPP):
                hint = "Pools need a file system that has hard links"
            raise remedies.from_oserror(
                error, "the file cannot be given its name", where=self.path, hint=hint
            ) from error
        self.named = True

    def settle(self) -> None:
        """Drop the hidden name: the file counts."""
        unlink(self.hidden, self.fd)

    def discard(self) -> None:
        """Remove both names and close the file."""
        try:
            if self.named:
                # First and durably: with this name alone the file would count.
                unlink_or_give_up(self.path, self.fd, self.close)
        finally:
            try:
                if self.fd >= 0:
                    # Even if that failed, remove as much as possible.
                    unlink(self.hidden, self.fd)
            finally:
                self.close()

    def close(self) -> None:
        """Unlock and close the file; closing again is harmless."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            locks.close(fd, self.path)

    def _give_up(self) -> None:
        with suppress(errors.PoolSetError):
            unlink(self.hidden, self.fd)
        locks.close(self.fd, self.path)


def publish(drafts: Sequence[Draft]) -> None:
    """Finish files that belong together, durably; the first one decides.

    Parameters
    ----------
    drafts : sequence of Draft
        With durable contents. Those without a final name get it.
    """
    if not drafts:
        return
    first, *others = drafts
    unnamed = [draft for draft in others if not draft.named]
    # Hidden names first: if only a final name survived a power cut, it would be taken for an
    # unrelated file and be in the way forever. Those of the first file are synced below.
    sync_directories(unnamed)
    for draft in unnamed:
        draft.give_name()
    sync_directories(drafts)
    if not first.named:
        first.give_name()
        sync_directories([first])
    for draft in drafts:
        draft.settle()
    sync_directories(drafts)


def clear(paths: Sequence[str]) -> None:
    """Remove what a killed creation or restore has left of a set of files.

    Parameters
    ----------
    paths : sequence of str
        The files of the set, in order. Files that count, unrelated files and locked files stay.

    Raises
    ------
    PoolSetBusy
        Another process is making this set.
    """
    if not paths:
        return
    never_counted = not os.path.lexists(paths[0]) or _has_twin(paths[0])
    for path in paths:
        if never_counted and _has_twin(path):
            _remove_unfinished(path)
        sweep(path)


def sweep(path: str) -> None:
    """Remove the files next to `path` with only a hidden name and no maker any more."""
    for orphan in _hidden_names(path):
        _remove_orphan(orphan)


def drop_twins(path: str, descriptor: int) -> bool:
    """Drop the hidden names that a killed maker left on a file; return whether there were any.

    Parameters
    ----------
    path : str
        Its final name, which may be gone.
    descriptor : int
        The file, open and locked.
    """
    try:
        about = os.fstat(descriptor)
    except OSError as error:
        raise remedies.from_oserror(error, "cannot be examined", where=path) from error
    if about.st_nlink <= leads_to(path, descriptor):
        return False
    twins = _twins(path, about)
    for twin in twins:
        unlink(twin, descriptor)
    return bool(twins)


def unlink(path: str, descriptor: int) -> None:
    """Unlink a name if it leads to this open file; another file of that name stays.

    Raises
    ------
    PoolSetError
        It cannot be removed.
    """
    if not leads_to(path, descriptor):
        return
    with removing(path):
        os.unlink(path)


@contextmanager
def removing(path: str) -> Iterator[None]:
    """Take it well that a name is gone already; say what else keeps it from being removed."""
    try:
        yield
    except FileNotFoundError:
        return
    except OSError as error:
        raise remedies.from_oserror(error, "cannot be removed", where=path) from error


def unlink_durably(path: str, descriptor: int) -> None:
    """Unlink a name as `unlink` does, and so that a power cut does not bring it back."""
    unlink(path, descriptor)
    sync_directory(os.path.dirname(path))


def unlink_or_give_up(path: str, descriptor: int, give_up: Callable[[], None]) -> bool:
    """Unlink a name as `unlink_durably` does, even if no descriptor is left for the directory.

    In that case the file is closed to free one. Its hidden name, which marks it as not counting, is
    removed last.

    Parameters
    ----------
    path : str
        The name.
    descriptor : int
        The file, open and locked.
    give_up : callable
        Closes it.

    Returns
    -------
    bool
        Whether the file is still open. Otherwise no hidden name of it is left.
    """
    try:
        unlink_durably(path, descriptor)
        return True
    except errors.PoolSetError as error:
        if error.errno not in _STARVED:
            raise
    give_up()
    sync_directory(os.path.dirname(path))
    sweep(path)
    return False


def leads_to(path: str, descriptor: int) -> bool:
    """Return whether a name leads to this open file."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False
    except OSError as error:
        raise remedies.from_oserror(error, "cannot be examined", where=path) from error


def sync_directories(drafts: Sequence[Draft]) -> None:
    """Make the names of files durable."""
    for directory in dict.fromkeys(os.path.dirname(draft.path) for draft in drafts):
        sync_directory(directory)


def sync_directory(directory: str) -> None:
    """Make the names in a directory durable."""
    try:
        descriptor = os.open(directory or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise remedies.from_oserror(
            error, "its entries cannot be made durable", where=directory
        ) from error


def _create(hidden: str, path: str) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NOCTTY
    try:
        return os.open(hidden, flags, PRIVATE)
    except FileNotFoundError as error:
        hint = "Create its directory first"
        raise remedies.from_oserror(error, "cannot be created", where=path, hint=hint) from error
    except OSError as error:
        raise remedies.from_oserror(error, "cannot be created", where=path) from error


def _hidden_stem(path: str) -> str:
    name = os.fsencode(os.path.basename(path))
    if len(name) > _LONGEST_NAME:
        return "." + blake2b(name, digest_size=16).hexdigest()
    return "." + os.fsdecode(name)


def _hidden_name(path: str) -> str:
    name = f"{_hidden_stem(path)}.rpmem-{os.urandom(4).hex()}"
    return os.path.join(os.path.dirname(path), name)


def _hidden_names(path: str) -> list[str]:
    """Return the hidden names next to a file's final one."""
    directory = os.path.dirname(path)
    start = _hidden_stem(path)
    try:
        names = os.listdir(directory or ".")
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        # Missing, or it may not be listed: making a file in it will report that.
        return []
    except OSError as error:
        raise remedies.from_oserror(error, "cannot be listed", where=directory) from error
    return [
        os.path.join(directory, each)
        for each in names
        if each.startswith(start) and _HIDDEN.fullmatch(each, len(start))
    ]


def _twins(path: str, about: os.stat_result) -> list[str]:
    """Return the hidden names next to `path` of the file that `about` describes."""
    if not stat.S_ISREG(about.st_mode):
        return []
    found = []
    for hidden in _hidden_names(path):
        try:
            if os.path.samestat(os.lstat(hidden), about):
                found.append(hidden)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise remedies.from_oserror(error, "cannot be examined", where=hidden) from error
    return found


def _has_twin(path: str) -> bool:
    try:
        about = os.lstat(path)
    except OSError:
        return False
    return about.st_nlink > 1 and bool(_twins(path, about))


def _remove_unfinished(path: str) -> None:
    descriptor = _open(path)
    if descriptor is None:
        return
    try:
        locks.lock(descriptor, path)
        if not leads_to(path, descriptor):
            raise errors.PoolSetBusy("it is being replaced by another process", where=path)
        if _has_twin(path):
            # Its final name first: without a hidden one the file would count, even after a power
            # cut.
            unlink_durably(path, descriptor)
            drop_twins(path, descriptor)
    finally:
        locks.close(descriptor, path)


def _remove_orphan(hidden: str) -> None:
    """Remove a file that has only its hidden name, unless its maker is still at work."""
    descriptor = None
    with suppress(errors.PoolSetDenied):  # another user's
        descriptor = _open(hidden)
    if descriptor is None:
        return
    try:
        with suppress(errors.PoolSetBusy):
            locks.lock(descriptor, hidden)
            if os.fstat(descriptor).st_nlink == 1:
                unlink(hidden, descriptor)
    finally:
        locks.close(descriptor, hidden)


def _open(path: str) -> int | None:
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NOCTTY | os.O_NONBLOCK
    try:
        return os.open(path, flags)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise remedies.from_oserror(error, "cannot be opened", where=path) from error
