"""The pool sets below the pool set directory, and what can be seen of each.

Hidden files and directories are left out: the default directory is a home directory. Directories
are not followed through symbolic links, nor deeper than `MOST_DEPTH`.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator

from rpmem import errors
from rpmem.base.pool_format import MINIMUM_SIZE, RECORD_OFFSET, RECORD_SIZE
from rpmem.base.remedies import from_oserror
from rpmem.control.messages import PoolSetRow
from rpmem.epochs import codec
from rpmem.epochs.state import state_of
from rpmem.files.attributes import MAJOR, SIGNATURE, keeps_record
from rpmem.files.locks import let_go, undisturbed
from rpmem.files.poolfiles import PoolFiles
from rpmem.files.poolset import SIGNATURE as SET_FILE
from rpmemd.database import Database

#: Directories below each other.
MOST_DEPTH = 8
#: Directory entries that are examined in all.
MOST_ENTRIES = 200_000
_SUFFIX = ".set"


class _Bound:
    """Counts what is examined."""

    def __init__(self) -> None:
        self.left = MOST_ENTRIES


def rows(database: Database) -> Iterator[PoolSetRow]:
    """Yield a row for each pool set, in the order of names, pools of one file last.

    Raises
    ------
    PoolSetError
        The directory itself cannot be read.
    """
    bound = _Bound()
    lone: list[str] = []
    taken: set[str] = set()
    for name, problem in _candidates(database, "", MOST_DEPTH, bound):
        if problem is not None:
            yield PoolSetRow(name=name, state="unreadable", reason=problem)
        elif not _is_set_file(database, name):
            lone.append(name)
        else:
            taken.update(_parts_of(database, name))
            yield _row(database, name)
    # What is a part of a pool set is no pool by itself.
    for name in lone:
        if database.path_of(name) not in taken:
            yield _row(database, name)
    if not bound.left:
        why = f"only the first {MOST_ENTRIES} files and directories were examined"
        yield PoolSetRow(name="...", state="unreadable", reason=why)


def _candidates(
    database: Database, below: str, depth: int, bound: _Bound
) -> Iterator[tuple[str, str | None]]:
    """Yield the names of files that may be pool sets, or of what cannot be read, and why not."""
    try:
        with os.scandir(os.path.join(database.directory, below)) as found:
            entries = sorted(_some(found, bound), key=lambda entry: entry.name)
    except OSError as error:
        if not below:
            raise from_oserror(error, "cannot be read", where=database.directory) from error
        yield f"{below}/", _why(error)
        return
    for entry in entries:
        name = f"{below}/{entry.name}" if below else entry.name
        try:
            if entry.is_dir(follow_symlinks=False):
                if depth > 1:
                    yield from _candidates(database, name, depth - 1, bound)
            elif entry.is_file() and _may_be_pool(database, name):
                yield name, None
        except (OSError, errors.PoolSetNameRefused) as error:
            # What might be anything is of no interest; a pool set is.
            if name.endswith(_SUFFIX):
                yield name, _why(error)


def _some(found: Iterator[os.DirEntry[str]], bound: _Bound) -> Iterator[os.DirEntry[str]]:
    for entry in found:
        if not bound.left:
            return
        bound.left -= 1
        if not entry.name.startswith("."):
            yield entry


def _may_be_pool(database: Database, name: str) -> bool:
    """Whether a file begins like a pool set file, or like a pool that rpmem laid out."""
    return _beginning(database, name).startswith((SET_FILE.encode(), SIGNATURE))


def _is_set_file(database: Database, name: str) -> bool:
    try:
        return not _beginning(database, name).startswith(SIGNATURE)
    except (OSError, errors.PoolSetNameRefused):
        return True  # what is wrong with it will be found again


def _beginning(database: Database, name: str) -> bytes:
    # It must not block on what has become a FIFO meanwhile.
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
    descriptor = os.open(database.path_of(name), flags)
    try:
        about = os.fstat(descriptor)
        head = os.read(descriptor, 32) if stat.S_ISREG(about.st_mode) else b""
    finally:
        let_go(descriptor)
    small = about.st_size < MINIMUM_SIZE
    return head if small or head.startswith(SIGNATURE) else b""


def _parts_of(database: Database, name: str) -> list[str]:
    try:
        return [os.path.realpath(path) for path in database.parts_of(name)]
    except errors.RpmemError:
        return []  # the row says why


def _row(database: Database, name: str) -> PoolSetRow:
    try:
        pool = database.look(name)
    except errors.MissingExtension:
        raise
    except errors.PoolSetNotFound as error:
        return PoolSetRow(name=name, state="missing", reason=_why(error))
    except (errors.PoolSetDenied, errors.PoolSetNameRefused) as error:
        return PoolSetRow(name=name, state="unreadable", reason=_why(error))
    except (errors.RpmemError, OSError) as error:
        return PoolSetRow(name=name, state="damaged", reason=_why(error))
    with pool:
        return _row_of(name, pool)


def _row_of(name: str, pool: PoolFiles) -> PoolSetRow:
    attributes, in_use = pool.attributes, pool.has_writer
    if attributes is None or not keeps_record(attributes):
        ours = attributes is not None and attributes.signature == SIGNATURE
        why = f"it has format {attributes.major}, not {MAJOR}" if ours and attributes else None
        return PoolSetRow(name=name, size=pool.size, state="foreign", reason=why)
    try:
        found = undisturbed(
            lambda: codec.read(_area(pool), pool_id=attributes.poolset_uuid),
            lambda: pool.has_writer,
        )
    except errors.CatalogueCorrupt as error:
        return PoolSetRow(name=name, size=pool.size, state="damaged", reason=error.what)
    if found is None:
        why = "it has no record of its epoch: its creation is going on, or was interrupted"
        return PoolSetRow(
            name=name, size=pool.size, state="in-use" if in_use else "damaged", reason=why
        )
    record = found.record
    return PoolSetRow(
        name=name,
        size=pool.size,
        state=state_of(record, in_use=in_use),
        epoch=record.epoch.number,
        identity=record.epoch.identity,
        copy=record.copy,
        mark=record.mark.name.lower(),
    )


def _area(pool: PoolFiles) -> bytes:
    with memoryview(pool.region) as view:
        return bytes(view[RECORD_OFFSET : RECORD_OFFSET + RECORD_SIZE])


def _why(error: OSError | errors.RpmemError) -> str:
    if isinstance(error, errors.RpmemError):
        return f"{error.where}: {error.what}" if error.where else error.what
    return os.strerror(error.errno or errno.EIO)
