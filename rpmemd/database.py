"""The pool set directory: all that an initiator can name.

An initiator names a pool set, never a path. Names are relative to the pool set directory and cannot
point outside. The pool set file, written by the administrator, says where the parts are; files that
are written here on an initiator's behalf (:meth:`Database.create` with `parts`) are next to it.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress

from rpmem import errors
from rpmem.base.pool_format import HEADER_SIZE, MINIMUM_SIZE
from rpmem.base.printable import printable
from rpmem.base.remedies import from_oserror
from rpmem.files.drafts import PRIVATE
from rpmem.files.header import INCOMPAT_SINGLEHDR, PoolAttributes, header_count
from rpmem.files.poolfiles import PoolFiles
from rpmem.files.poolset import Part, PoolSet, load_any
from rpmem.files.removal import remove_parts
from rpmem.files.setfile import SetFile, held_alone

_LONGEST_NAME = 4096
_MOST_PARTS = 1024
_ATTEMPTS = 10


class Database:
    """The pool sets of one directory.

    Parameters
    ----------
    directory : str
        Absolute path.
    file_mode : int
        Permissions of new files.

    Raises
    ------
    ConfigError
        The path is not absolute.
    """

    def __init__(self, directory: str, *, file_mode: int = PRIVATE) -> None:
        if not os.path.isabs(directory):
            raise errors.ConfigError(
                f"the pool set directory '{directory}' is not an absolute path",
                hint="Correct the option poolset-dir",
            )
        self.directory = os.path.realpath(directory)
        self._file_mode = file_mode

    def create(
        self,
        name: str,
        pool_size: int,
        attributes: PoolAttributes | None = None,
        *,
        parts: int = 0,
    ) -> PoolFiles:
        """Create the pool of a pool set.

        Parameters
        ----------
        name : str
            Name of the pool set file.
        pool_size : int
            Minimum size of the pool in bytes.
        attributes : PoolAttributes, optional
            The content of the headers.
        parts : int
            More than 0: if there is no such pool set file, write one with that many parts. It is
            removed again if the pool cannot be created, and together with the pool.

        Raises
        ------
        PoolSetError
            The kind of error says why.
        """
        set_file = self._held_or_written(name, pool_size, parts, attributes)
        try:
            pool = PoolFiles.create(
                self._read(name, lock=False),
                pool_size=pool_size,
                attributes=attributes,
                mode=self._file_mode,
            )
        except BaseException:
            if set_file is not None:
                if set_file.made:
                    with suppress(errors.PoolSetError):
                        set_file.remove()
                set_file.close()
            raise
        if set_file is not None:
            if set_file.made:
                pool.belongings.append(set_file)
            try:
                set_file.release() if set_file.made else set_file.close()
            except BaseException:
                pool.close(remove=True)
                raise
        return pool

    def open(self, name: str, pool_size: int = 0) -> PoolFiles:
        """Open the pool of a pool set.

        Parameters
        ----------
        name : str
            Name of the pool set file, or of a file that is a pool by itself.
        pool_size : int
            Minimum size of the pool in bytes.
        """
        return PoolFiles.open(self._read(name), pool_size=pool_size)

    def look(self, name: str) -> PoolFiles:
        """Open the pool of a pool set read-only, without a lock, beside whoever uses it.

        Parameters
        ----------
        name : str
            As for `open`.
        """
        return PoolFiles.look(self._read(name, lock=False))

    def parts_of(self, name: str) -> list[str]:
        """Return the paths of the parts of a pool set, as its file names them."""
        return [part.path for part in self._read(name, lock=False).parts]

    def remove(self, name: str, *, force: bool = False, pool_set: bool = False) -> None:
        """Remove the pool of a pool set.

        Parameters
        ----------
        name : str
            Name of the pool set file.
        force : bool
            Remove what can be removed, and do not report the rest.
        pool_set : bool
            Remove the pool set file as well.

        Raises
        ------
        PoolSetError
            The kind of error says why; with `force` only if the name is refused. Without `force`,
            `PoolSetNotFound` if a part was missing: the rest was removed nevertheless.
        """
        self.path_of(name)
        try:
            self._remove(name, force=force, pool_set=pool_set)
        except errors.PoolSetError:
            if not force:
                raise

    def _remove(self, name: str, *, force: bool, pool_set: bool) -> None:
        path = self.path_of(name)
        with held_alone(path if pool_set else None) as set_file:
            found = self._read(name, replicas_too=force, lock=set_file is None)
            if _is_whole_pool(found, path):
                # A file that is a pool by itself: its removal was not permitted here.
                raise errors.PoolSetMalformed("it is not a pool set file", where=name)
            missing, in_use = None, False
            try:
                in_use = remove_parts(found, force=force)
            except errors.PoolSetNotFound as error:
                missing = error
            if set_file is not None and not in_use:
                set_file.remove()
            if missing is not None:
                raise missing

    def path_of(self, name: str) -> str:
        """Return the path of a name that stays inside the directory; `PoolSetNameRefused`."""
        problem = None
        if not name or len(name) > _LONGEST_NAME:
            problem = "it is empty or too long"
        elif not name.isprintable():
            problem = "it has non-printing characters"
        elif name.startswith("/"):
            problem = "it is an absolute path"
        elif ".." in name.split("/"):
            problem = "it points outside the pool set directory"
        if problem is None:
            path = os.path.realpath(os.path.join(self.directory, name))
            inside = self.directory.rstrip("/") + "/"
            if path.startswith(inside):
                return path
            problem = "it leads outside the pool set directory"
        raise errors.PoolSetNameRefused(
            f"the pool set name was refused: {problem}",
            where=printable(name, 200),
            hint="Name a pool set file relative to the target's pool set directory",
        )

    def _read(self, name: str, *, replicas_too: bool = False, lock: bool = True) -> PoolSet:
        path = self.path_of(name)
        found = load_any(path, lock=lock)
        if not _is_whole_pool(found, path) and _size_of(path) >= MINIMUM_SIZE:
            # An initiator chooses the content of a part's header. A part must not pass for a pool
            # set file, which may name any path; no genuine one is as large as the smallest part.
            raise errors.PoolSetMalformed("it is too large to be a pool set file", where=name)
        if not replicas_too:
            found.check_for_target()
        return found

    def _held_or_written(
        self, name: str, pool_size: int, parts: int, attributes: PoolAttributes | None
    ) -> SetFile | None:
        """Hold the pool set file, after writing one if it is missing and `parts` allows it.

        None for the name of a file that is a pool by itself.
        """
        path = self.path_of(name)
        for _ in range(_ATTEMPTS):
            try:
                found = self._read(name)
                return None if _is_whole_pool(found, path) else SetFile.hold(path)
            except errors.PoolSetNotFound:
                if not parts:
                    raise
            with suppress(errors.PoolSetExists):  # another process was quicker
                text = self._text_for(name, pool_size, parts, attributes)
                return SetFile.write(path, text, self._file_mode)
        raise errors.PoolSetBusy("other processes keep making and removing it", where=name)

    def _text_for(
        self, name: str, pool_size: int, parts: int, attributes: PoolAttributes | None
    ) -> str:
        """Return the text of a pool set file for a pool of at least that size."""
        if not 0 < parts <= _MOST_PARTS:
            raise errors.UsageError(f"a pool set cannot have {parts} parts")
        path = self.path_of(name)
        if any(piece.startswith(".") for piece in name.split("/")):
            # The default directory is the home directory, where hidden files configure programs.
            raise errors.PoolSetNameRefused("a new pool set file must not be hidden", where=name)
        options = _options_for(attributes)
        headers = header_count(parts, options)
        needed = max(pool_size, 0) + HEADER_SIZE * max(headers - 1, 0)
        each = -(-needed // parts)
        each = max(each + -each % HEADER_SIZE, MINIMUM_SIZE)
        return PoolSet(
            parts=[Part(each, f"{path}.part{index}") for index in range(parts)],
            options=options,
        ).format()


def removal_status(error: errors.RpmemError, name: str) -> int:
    """Return the exit code with which PMDK's rpmemd reports a failed removal.

    Parameters
    ----------
    error : RpmemError
        The error from :meth:`Database.remove`.
    name : str
        The name of the pool set that was to be removed.
    """
    if isinstance(error, errors.PoolSetNameRefused) and name.startswith("/"):
        return errno.EBADF
    if isinstance(error, errors.PoolSetBusy):
        return errno.EWOULDBLOCK
    return error.errno if 0 < error.errno < 255 else errno.EIO


def _size_of(path: str) -> int:
    try:
        return os.path.getsize(path)
    except OSError as error:
        raise from_oserror(error, "cannot be examined", where=path) from error


def _is_whole_pool(found: PoolSet, path: str) -> bool:
    return [part.path for part in found.parts] == [path]


def _options_for(attributes: PoolAttributes | None) -> frozenset[str]:
    if attributes is None or attributes.is_zero:
        return frozenset({"NOHDRS"})
    if attributes.incompat & INCOMPAT_SINGLEHDR:
        return frozenset({"SINGLEHDR"})
    return frozenset()
