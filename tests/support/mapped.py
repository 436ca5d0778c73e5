"""What a pool that nobody uses says of the pages that another copy lacks."""

from __future__ import annotations

from rpmem.epochs.record import CopyRecord
from rpmem.pool import maps
from rpmem.pool.absent import Absent
from rpmem.pool.superblock import LAYOUT_OFFSET
from tests.support.media import ImageMedium, PoolImage

PAGE = 4096


def mapped(here: PoolImage, record: CopyRecord) -> set[int] | None:
    """Return the pages that a copy may lack which comes back with a record; None: any.

    That of the superblock is sent in any case, and so one of them.
    """
    layout = here.layout
    absent = Absent(layout.pool_size)
    kept = maps.read(ImageMedium(here.image), layout, here.record, absent)
    absent.resume(kept.absences, kept.boots)
    absent.part_closed(here.record, [here.record.copy])
    found = absent.find(record, keeps=True, boot=None)
    if found is None:
        return None
    pages = {page for page in range(layout.pool_size // PAGE) if page * PAGE in found}
    return pages | {LAYOUT_OFFSET // PAGE}
