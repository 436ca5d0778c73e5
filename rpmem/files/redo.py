"""Replace the headers of several parts so that a crash leaves all old or all new.

A note of what is about to be written is first put next to part 0. The next open of the pool
finishes that write, unless the headers have changed otherwise since: then the note is out of date
(a program unaware of it was here) and is discarded.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress

from rpmem import errors
from rpmem.base import remedies
from rpmem.base.pool_format import HEADER_SIZE
from rpmem.files.drafts import PRIVATE, removing, sync_directory
from rpmem.files.partfile import PartFile

SUFFIX = ".rpmem-redo"
_DRAFT = "~"

_FRAME = struct.Struct("<8sII")
_MAGIC = b"RPMREDO1"
_LONGEST = 64 << 20


def note_path(first_part: str) -> str:
    """Return the path of a pool's note, if there is one."""
    return first_part + SUFFIX


def replace_headers(parts: Sequence[PartFile], headers: Sequence[bytes]) -> None:
    """Write one header per part, all or none.

    Parameters
    ----------
    parts : sequence of PartFile
        Locked parts, in order.
    headers : sequence of bytes
        4096 bytes for each of the first ``len(headers)`` parts.
    """
    concerned = parts[: len(headers)]
    old = [part.read_header() for part in concerned]
    noted = _write_note(parts, old, headers)
    for part, header in zip(concerned, headers, strict=True):
        part.write_header(header)
    if noted:
        # If it stays, the next open carries it out again, which changes nothing.
        with suppress(OSError):
            os.unlink(note_path(parts[0].path))


def finish(parts: Sequence[PartFile], is_whole: Callable[[bytes], bool]) -> bool:
    """Carry out a note that a crash left behind, if it still applies.

    Parameters
    ----------
    parts : sequence of PartFile
        Locked parts, in order.
    is_whole : callable
        Whether a header's checksum is right; otherwise its write was interrupted.

    Returns
    -------
    bool
        Whether headers were written.
    """
    path = note_path(parts[0].path)
    noted = pending(parts, is_whole)
    if noted is None:
        _remove(path + _DRAFT)
        return False
    for part, new in zip(parts, noted, strict=False):
        part.write_header(new)
    _remove(path)
    return bool(noted)


def pending(parts: Sequence[PartFile], is_whole: Callable[[bytes], bool]) -> list[bytes] | None:
    """Return the headers that a note has for the first parts, without writing them.

    Returns
    -------
    list of bytes or None
        Empty if the note no longer applies, None if there is none.
    """
    path = note_path(parts[0].path)
    try:
        with open(path, "rb") as file:
            pairs = _parse(file.read(_LONGEST))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise remedies.from_oserror(error, "cannot be read", where=path) from error
    if not 0 < len(pairs) <= len(parts):
        return []
    for part, (old, new) in zip(parts, pairs, strict=False):
        present = part.read_header()
        if present not in (old, new) and is_whole(present):
            return []
    return [new for _, new in pairs]


def forget(first_part: str) -> None:
    """Remove a note together with its pool."""
    path = note_path(first_part)
    for name in (path, path + _DRAFT):
        with suppress(OSError):
            os.unlink(name)


def _remove(path: str) -> None:
    with removing(path):
        os.unlink(path)


def _write_note(parts: Sequence[PartFile], old: list[bytes], new: Sequence[bytes]) -> bool:
    if any(part.is_device for part in parts):
        # A device has no directory for a note, and its stores reach the medium word by word.
        return False
    path = note_path(parts[0].path)
    draft = path + _DRAFT
    body = b"".join(before + after for before, after in zip(old, new, strict=True))
    frame = _FRAME.pack(_MAGIC, len(new), zlib.crc32(body))
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        descriptor = os.open(draft, flags, PRIVATE)
    except PermissionError:
        # A daemon may have access to the parts but not to their directory: PMDK has no note either.
        return False
    except OSError as error:
        raise remedies.from_oserror(error, "cannot be created", where=draft) from error
    try:
        with open(descriptor, "wb") as file:
            # For all users who may open the pool.
            os.fchmod(descriptor, parts[0].permissions)
            file.write(frame + body)
            file.flush()
            os.fsync(file.fileno())
        os.rename(draft, path)
        sync_directory(os.path.dirname(path))
    except (OSError, errors.PoolSetError) as error:
        # A note left behind would later carry out the change that is refused now.
        for name in (draft, path):
            with suppress(OSError):
                os.unlink(name)
        if isinstance(error, errors.PoolSetError):
            raise
        raise remedies.from_oserror(error, "cannot be written", where=draft) from error
    return True


def _parse(text: bytes) -> list[tuple[bytes, bytes]]:
    if len(text) < _FRAME.size:
        return []
    magic, count, checksum = _FRAME.unpack_from(text)
    body = text[_FRAME.size :]
    if magic != _MAGIC or len(body) != 2 * HEADER_SIZE * count or zlib.crc32(body) != checksum:
        return []
    pieces = [body[at : at + HEADER_SIZE] for at in range(0, len(body), HEADER_SIZE)]
    return list(zip(pieces[::2], pieces[1::2], strict=True))
