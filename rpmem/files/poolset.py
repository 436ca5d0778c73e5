"""Pool set files: poolset(5), read and written.

A pool set names the parts of one pool, in order, and its replicas. This module reads and writes the
text; its meaning is in `rpmem.files.layout`, and the contents of directories and devices are found
by `rpmem.files.directories`.

Everything PMDK 1.12 accepts is accepted with the same meaning, with these exceptions, refused
because PMDK's reading of them is surprising: ``SINGLEHDR`` together with ``NOHDRS``, keywords that
run into the next word, a part that is listed twice, sizes of more than 63 bits. White space around
a line is allowed here.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
from typing import NoReturn

from rpmem.base.printable import printable
from rpmem.base.remedies import from_oserror
from rpmem.base.sizes import format_size, parse_size
from rpmem.base.target import Target, check_pool_set_name
from rpmem.errors import (
    PoolSetBusy,
    PoolSetMalformed,
    PoolSetNameRefused,
    PoolSetNotFound,
    TargetSyntaxError,
    UsageError,
)
from rpmem.files import locks
from rpmem.files.directories import resolve
from rpmem.files.layout import (
    MIN_PART,
    OPTIONS,
    PAGE,
    SIGNATURE,
    LocalReplica,
    Part,
    PoolSet,
    RemoteReplica,
    Segment,
    check_options,
    single,
)

__all__ = [
    "MIN_PART",
    "OPTIONS",
    "PAGE",
    "SIGNATURE",
    "LocalReplica",
    "Part",
    "PoolSet",
    "RemoteReplica",
    "Segment",
    "format_size",
    "load_any",
    "parse",
    "parse_size",
    "resolve",
    "single",
]

_LARGEST_FILE = 16 * 1024 * 1024
_HEAD = 4096
_BYTE_ORDER_MARKS = (
    (b"\xef\xbb\xbf", "utf-8"),
    (b"\xff\xfe", "utf-16-le"),
    (b"\xfe\xff", "utf-16-be"),
)


class _Parser:
    """One pass over the lines, with the section they belong to as its only state."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.line = 0
        self.options: set[str] = set()
        self.first: list[Part] = []
        self.replicas: list[LocalReplica | RemoteReplica] = []
        self.section: list[Part] | None = self.first  # None: after a remote replica
        self.section_line = 1
        self.seen: dict[str, int] = {}
        self.remote: dict[tuple[Target, str], int] = {}

    def fail(self, what: str, hint: str | None = None, line: int | None = None) -> NoReturn:
        raise PoolSetMalformed(what, where=f"{self.source}:{line or self.line}", hint=hint)

    def parse(self, text: str) -> PoolSet:
        # Like PMDK, also accept the line ends of other systems.
        first, *rest = (line.removesuffix("\r") for line in text.split("\n"))
        self.line = 1
        if first != SIGNATURE:
            shown = printable(first, 40)
            if first.rstrip() == SIGNATURE:
                shown += " with blanks behind it"
            self.fail(
                f"the first line is {shown or 'empty'}",
                f"The first line of a pool set file is exactly {SIGNATURE}; make sure that this is "
                "a pool set file",
            )
        for self.line, line in enumerate(rest, 2):
            self.read(line)
        self.end_section()
        self.close_section()
        return PoolSet(self.first, self.replicas, frozenset(self.options), self.source)

    def read(self, line: str) -> None:
        if "\r" in line:
            self.fail("there is a carriage return in the line", "End lines with a line feed")
        words = [word for word in re.split("[ \t]+", line.partition("#")[0]) if word]
        if not words:
            return
        keyword, *arguments = words
        if keyword == "OPTION":
            self.read_options(arguments)
        elif keyword == "REPLICA":
            self.read_replica(arguments)
        else:
            self.read_part(words)

    def read_options(self, names: list[str]) -> None:
        known = " or ".join(sorted(OPTIONS))
        if not names:
            self.fail("OPTION has no name", f"Name {known}, or remove the line")
        self.options.update(names)
        check_options(self.options, f"{self.source}:{self.line}")

    def read_replica(self, words: list[str]) -> None:
        self.end_section()
        if not words:
            self.close_section()
            self.section, self.section_line = [], self.line
            return
        if len(words) != 2:
            self.fail(
                f"REPLICA is followed by {len(words)} words",
                "Write REPLICA alone before the parts of a local replica, or REPLICA TARGET "
                "POOLSET, as in: REPLICA user@node2 pool.set",
            )
        target, name = words
        try:
            parsed = Target.parse(target)
            check_pool_set_name(name)
        except (TargetSyntaxError, PoolSetNameRefused) as error:
            self.fail(f"{error.where}: {error.what}" if error.where else error.what, error.hint)
        twin = self.remote.setdefault((parsed, name), self.line)
        if twin != self.line:
            self.fail(
                f"the replica {target} {name} is already listed on line {twin}",
                "List every replica only once",
            )
        self.close_section()
        self.section = None
        self.replicas.append(RemoteReplica(target, name, self.line))

    def read_part(self, words: list[str]) -> None:
        if self.section is None:
            self.fail(
                "a remote replica cannot have parts here",
                "Its parts are listed in the pool set file on the target; write a line REPLICA "
                "before the parts of a local replica",
            )
        if len(words) != 2:
            self.fail(
                f"a size and a path are expected, not {len(words)} word{'s' * (len(words) > 1)}",
                "A line is SIZE PATH, OPTION NAME or REPLICA; paths have no blanks",
            )
        size, path = words
        if not path.startswith("/"):
            self.fail(
                f"the path '{printable(path, 200)}' is not absolute",
                "A line is SIZE PATH with a path that begins with '/'",
            )
        if "\0" in path:
            self.fail("the path has a zero byte", "Check how the file was written")
        normal = os.path.normpath(path)
        if normal in self.seen:
            self.fail(
                f"{printable(path, 200)} is already a part, on line {self.seen[normal]}",
                "Give each part its own file",
            )
        self.seen[normal] = self.line
        self.section.append(Part(self.read_size(size), path, self.line))

    def read_size(self, text: str) -> int | None:
        if text == "AUTO":
            return None
        try:
            return parse_size(text)
        except UsageError as error:
            self.fail(error.what, f"{error.hint}; AUTO is for device DAX")

    def end_section(self) -> None:
        """Refuse a section that ends without parts."""
        if self.section is not None and not self.section:
            whose = "pool set" if self.section is self.first else "replica"
            self.fail(
                f"the {whose} has no parts",
                f"List at least one part, SIZE PATH, after line {self.section_line}",
            )

    def close_section(self) -> None:
        if self.section and self.section is not self.first:
            self.replicas.append(LocalReplica(self.section, self.section_line))


def parse(text: str, *, source: str = "pool set") -> PoolSet:
    """Read the text of a pool set file.

    Parameters
    ----------
    text : str
        The whole file.
    source : str
        Its name, for messages.

    Returns
    -------
    PoolSet
        With the line of every part and replica.

    Raises
    ------
    PoolSetMalformed
        The error has file, line, reason and remedy.
    """
    return _Parser(source).parse(text)


def load_any(path: str | os.PathLike[str], *, lock: bool = True) -> PoolSet:
    """Read a pool set file, or treat any other file or device DAX as a pool of one part.

    Parameters
    ----------
    path : str or os.PathLike
        A pool set file, or a part.
    lock : bool
        Hold a shared lock while reading, so that a pool set that rpmemd or pmempool has locked is
        reported as busy. It need not be writable.

    Returns
    -------
    PoolSet
        Whose `source` is `path`, or as `single` makes it.

    Raises
    ------
    PoolSetMalformed
        When it breaks the rules of pool set files, or is no file.
    PoolSetNotFound, PoolSetDenied, PoolSetBusy, PoolSetError
        When it cannot be read.
    """
    name = os.fspath(path)
    data = _read(name, _LARGEST_FILE, lock=lock)
    if data is not None:
        # As Python decodes file names, so that paths reach the kernel as the bytes of the file.
        return parse(os.fsdecode(data), source=name)
    try:
        about = os.stat(name)
    except OSError as error:
        raise from_oserror(error, "cannot be examined", where=name) from error
    return single(name, None if stat.S_ISCHR(about.st_mode) else about.st_size)


def open_locked(name: str) -> int:
    """Open a pool set file for reading, and hold a shared lock on it.

    Raises
    ------
    PoolSetError
        As `load_any` does.
    """
    descriptor = _open(name)
    try:
        _lock(descriptor, name)
    except BaseException:
        locks.let_go(descriptor)
        raise
    return descriptor


def _open(name: str) -> int:
    try:
        # A FIFO or a device must not block, and is refused later.
        return os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise PoolSetNotFound(
            "there is no such pool set file", where=name, hint="Create it, or correct the name"
        ) from error
    except OSError as error:
        raise from_oserror(error, "cannot open the pool set file", where=name) from error


def _read(name: str, limit: int, *, lock: bool) -> bytes | None:
    """Return the contents of a pool set file, None for any other file."""
    descriptor = _open(name)
    try:
        about = os.fstat(descriptor)
        if stat.S_ISCHR(about.st_mode):
            return None
        if not stat.S_ISREG(about.st_mode):
            raise PoolSetMalformed("this is not a file", where=name, hint="Name a pool set file")
        if lock:
            _lock(descriptor, name)
        with open(descriptor, "rb", closefd=False) as file:
            data = file.read(_HEAD)
            if not data.startswith(SIGNATURE.encode()):
                if about.st_size < MIN_PART:
                    _check_beginning(data, name)
                return None
            data += file.read(limit - len(data))
    except OSError as error:
        raise from_oserror(error, "cannot read the pool set file", where=name) from error
    finally:
        locks.let_go(descriptor)
    if len(data) >= limit:
        raise PoolSetMalformed(f"the file is larger than {limit} bytes", where=name)
    return data


def _check_beginning(head: bytes, name: str) -> None:
    """Refuse a file that seems meant as a pool set file, being too small to be a part."""
    what = None
    for mark, encoding in _BYTE_ORDER_MARKS:
        if head.startswith(mark) and SIGNATURE in head.decode(encoding, "replace"):
            what = f"it begins with a byte order mark ({encoding})"
            break
    else:
        if head.lstrip().startswith(SIGNATURE.encode()):
            what = "it begins with blanks or an empty line"
    if what is not None:
        raise PoolSetMalformed(
            f"{what}, not with {SIGNATURE}",
            where=f"{name}:1",
            hint="Save it as plain text (UTF-8 without a mark) that begins with that word",
        )


def _lock(descriptor: int, name: str) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise PoolSetBusy(
            "another process has locked the pool set file",
            where=name,
            hint="Close the pool there first",
        ) from error
    except OSError as error:
        # Some network file systems have no locks; a file that cannot be locked cannot be busy.
        if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
