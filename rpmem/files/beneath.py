"""What the medium of a pool holds, past the kernel's cache, which may show something else."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from rpmem.base.remedies import from_oserror

if TYPE_CHECKING:
    from rpmem.files.layout import Segment
    from rpmem.files.partfile import PartFile
    from rpmem.files.poolfiles import PoolFiles
    from rpmem.memory.region import Region

#: What direct reads begin and end at, in the file and in memory.
_ALIGNMENT = 4096


class Content(NamedTuple):
    """Bytes that were read from a medium: those of a range begin somewhere in a region."""

    region: Region
    begin: int


def read_beneath(files: PoolFiles, offset: int, length: int) -> Content | None:
    """Read a range of a pool from its medium; what is to be there has to be durable.

    Returns
    -------
    Content or None
        None: the memory is the medium, as on tmpfs and DAX, or the file system cannot do it.

    Raises
    ------
    PoolSetError
        The medium cannot be read.
    """
    from rpmem.memory.region import Region

    if files.region.medium != "page":
        return None
    low = offset - offset % _ALIGNMENT
    high = offset + length + -(offset + length) % _ALIGNMENT
    region = Region.anonymous(high - low)
    with memoryview(region) as view:
        for part, segment in zip(files.parts, files.segments, strict=True):
            first = max(low, segment.pool_offset)
            behind = min(high, segment.pool_offset + segment.length)
            if first < behind:
                with view[first - low : behind - low] as piece:
                    if not _read(part, segment, first, piece):
                        return None
    return Content(region, offset - low)


def _read(part: PartFile, segment: Segment, offset: int, piece: memoryview) -> bool:
    """Fill memory with what a part's medium has at a pool offset; False: that is not possible."""
    try:
        # By its descriptor, as a new file may have no name yet.
        file = os.open(f"/proc/self/fd/{part.fd}", os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
    except OSError:
        return False
    at = segment.file_offset + offset - segment.pool_offset
    done = 0
    try:
        while done < len(piece):
            with piece[done:] as rest:
                count = os.preadv(file, [rest], at + done)
            if count <= 0:
                raise OSError(5, "it is shorter than it was")
            done += count
    except OSError as error:
        raise from_oserror(error, "its medium cannot be read", where=part.path) from error
    finally:
        os.close(file)
    return True
