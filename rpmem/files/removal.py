"""Removing the parts of a pool, without mapping anything."""

from __future__ import annotations

from rpmem import errors
from rpmem.files import drafts, poolset, redo
from rpmem.files.directories import present
from rpmem.files.partfile import PartFile
from rpmem.files.poolset import PoolSet


def remove_parts(pool_set: PoolSet, *, force: bool = False) -> bool:
    """Unlink the parts of a pool that is not in use; clear the headers of devices.

    Parameters
    ----------
    pool_set : PoolSet
        Its own parts are removed, those of its replicas are not.
    force : bool
        Remove what can be removed, and do not report the rest.

    Returns
    -------
    bool
        With `force`: whether a part stays because it is in use. Its user needs the pool set file
        that names it.

    Raises
    ------
    PoolSetNotFound
        Without `force`: a part was missing. The others are gone.
    PoolSetBusy, PoolSetDenied
        Without `force`; nothing was removed unless the last unlink itself failed.
    """
    missing: errors.PoolSetNotFound | None = None
    in_use = False
    paths = []
    parts: list[PartFile] = []
    try:
        poolset.resolve(pool_set)
    except errors.PoolSetNotFound as error:
        missing = error
    except errors.PoolSetError:
        if not force:
            raise
    try:
        paths = present(pool_set)
        for path in paths:
            try:
                parts.append(PartFile.open(path, allocate=False))
            except errors.PoolSetNotFound as error:
                missing = missing or error
            except errors.PoolSetError as error:
                if not force:
                    raise
                in_use = in_use or isinstance(error, errors.PoolSetBusy)
        if parts and not in_use:
            redo.forget(paths[0])
        for part in parts:
            try:
                part.remove()
            except errors.PoolSetError:
                if not force:
                    raise
        drafts.clear(paths)
    except errors.PoolSetError:
        if not force:
            raise
    finally:
        for part in parts:
            part.close()
    if missing is not None and not force:
        raise missing
    return in_use
