"""A pool set file as such: written whole, held while in use, removed only if still the same.

A process that creates a pool holds its pool set file, shared with others that do; a process that
writes or removes the file holds it exclusively. So if several create the same pool set at once, one
writes the file, and it stays until the parts are there. Who removes a pool with its file holds the
file before the first part goes: from then on nobody begins another pool that would lose it.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from rpmem import errors
from rpmem.base import remedies
from rpmem.base.handles import Closing
from rpmem.files import drafts, locks, poolset
from rpmem.files.drafts import PRIVATE, Draft

_PATIENCE_S = 2.0
_LOOK_AGAIN_S = 0.01


class SetFile(Closing):
    """A pool set file that is held: no program that follows the rules removes or replaces it.

    Attributes
    ----------
    path : str
        Its path.
    made : bool
        Whether this object wrote it.
    alone : bool
        Whether it is held exclusively.
    """

    def __init__(self, path: str, fd: int, *, made: bool) -> None:
        self.path = path
        self.made = self.alone = made
        self._fd = fd
        self._owner = os.getpid()

    @classmethod
    def write(cls, path: str, text: str, mode: int = PRIVATE) -> Self:
        """Write a new pool set file, whole and durable before it is visible; hold it exclusively.

        Raises
        ------
        PoolSetExists
            A file of that name exists.
        PoolSetError
            It cannot be written; nothing was left behind.
        """
        drafts.sweep(path)
        draft = Draft(path, mode)
        try:
            try:
                with open(draft.fd, "wb", closefd=False) as file:
                    file.write(os.fsencode(text))
                    file.flush()
                    os.fsync(draft.fd)
            except OSError as error:
                raise remedies.from_oserror(error, "cannot be written", where=path) from error
            drafts.publish([draft])
        except BaseException:
            draft.discard()
            raise
        return cls(path, draft.fd, made=True)

    @classmethod
    def hold(cls, path: str) -> Self:
        """Hold an existing pool set file, shared with others.

        Raises
        ------
        PoolSetBusy
            It is held exclusively: it is being written or removed.
        PoolSetNotFound
            It does not exist.
        """
        fd = poolset.open_locked(path)
        file = cls(path, fd, made=False)
        try:
            file.check()
        except BaseException:
            file.close()
            raise
        return file

    def remove(self) -> None:
        """Remove the file, which is held exclusively; a file that has replaced it stays.

        Raises
        ------
        PoolSetBusy
            It is not held exclusively: another process kept holding it (`reserve`). It stays.
        """
        if not self.alone:
            raise self._in_use()
        if drafts.unlink_or_give_up(self.path, self._fd, self.close):
            drafts.drop_twins(self.path, self._fd)

    def release(self) -> None:
        """Stop holding it, but remember which file it is."""
        self.alone = False
        try:
            locks.unlock(self._fd)
        except OSError as error:
            raise remedies.from_oserror(error, "cannot be unlocked", where=self.path) from error

    def close(self) -> None:
        """Stop holding it; closing again is harmless."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            locks.close(fd, self.path, locked=os.getpid() == self._owner)

    def reserve(self) -> None:
        """Hold it exclusively, once no other process holds it.

        Raises
        ------
        PoolSetBusy
            Another process keeps holding it.
        """
        end = time.monotonic() + _PATIENCE_S
        while True:
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > end:
                    raise self._in_use() from None
                time.sleep(_LOOK_AGAIN_S)
            except OSError as error:
                raise remedies.from_oserror(error, "cannot be locked", where=self.path) from error
            else:
                self.alone = True
                return

    def check(self) -> None:
        """Raise PoolSetNotFound or PoolSetBusy if its path does not lead to it any more."""
        if drafts.leads_to(self.path, self._fd):
            return
        if os.path.lexists(self.path):
            raise errors.PoolSetBusy("it is being replaced by another process", where=self.path)
        raise errors.PoolSetNotFound("another process has removed it", where=self.path)

    def _in_use(self) -> errors.PoolSetBusy:
        return errors.PoolSetBusy(
            "another process has locked the pool set file",
            where=self.path,
            hint="Remove it when no process uses it any longer",
        )


@contextmanager
def held(path: str | None) -> Iterator[SetFile | None]:
    """Hold the pool set file at `path` during the block, with others; None if there is none."""
    if path is None:
        yield None
        return
    with SetFile.hold(path) as file:
        yield file


@contextmanager
def held_alone(path: str | None) -> Iterator[SetFile | None]:
    """Hold the pool set file at `path` exclusively during the block; None if there is none.

    Raises
    ------
    PoolSetBusy
        Another process keeps holding it.
    PoolSetNotFound
        It does not exist, or another process removed it meanwhile.
    """
    with held(path) as file:
        if file is not None:
            file.reserve()
            file.check()
        yield file
