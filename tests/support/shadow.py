"""The shadow medium: only flushed data ever reaches the files.

Memory is a private copy, and each flush writes its range to the file. Unflushed data is lost when
the process dies, as on a real medium in a power cut.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from collections.abc import Callable, Sequence

from rpmem.errors import PoolSetError
from rpmem.memory.region import Region
from tests.support.compiled import compiled


def map_shadow(
    spans: Sequence[tuple[int, int, int]], before: Callable[[], int] = lambda: 0
) -> Region:
    """Map parts on the shadow medium; what `PoolFiles.mapper` can be.

    Parameters
    ----------
    spans : sequence of (fd, file_offset, length)
        As for `Region.map_parts`.
    before : callable
        Called before each flush; it returns 0, or an errno with which the flush fails.
    """
    hooked = compiled("_hooked_media")
    region = Region.map_parts(spans)
    hooked.make_private(region, spans)
    # Opened anew: a duplicate would keep the file's lock after its owner has closed it.
    files = [os.open(f"/proc/self/fd/{fd}", os.O_RDWR | os.O_CLOEXEC) for fd, _, _ in spans]
    for file in files:
        weakref.finalize(region, os.close, file)
    pieces = []
    start = 0
    for file, (_, file_offset, length) in zip(files, spans, strict=True):
        pieces.append((start, start + length, file, file_offset))
        start += length
    base = region.address

    def write(verb: str, offset: int, length: int) -> int:
        if error := before():
            return error
        for first, end, file, file_offset in pieces:
            if not first <= offset < end:
                continue
            try:
                while length > 0:
                    data = (ctypes.c_char * length).from_address(base + offset)
                    done = os.pwrite(file, data, file_offset + offset - first)
                    offset, length = offset + done, length - done
            except OSError as error:
                return error.errno or 5
            return 0
        raise PoolSetError(f"{verb} of {length} bytes at {offset}: no part is there")

    hooked.hook(region, write)
    return region
