"""Directories and device DAX as parts: details that poolset(5) leaves to the machine.

A directory in a pool set stands for the files in it called ``000000.pmem``,
``000001.pmem`` and so on, numbered consecutively across all directories of one copy. PMDK adds
files while a pool grows; rpmem makes one file per directory, of the size that the pool set reserves
there, when it creates a pool. A device DAX has a fixed size, which ``AUTO`` stands for.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Sequence

from rpmem.base.remedies import from_oserror
from rpmem.base.values import replace
from rpmem.errors import PoolSetMalformed, PoolSetNotFound
from rpmem.files.layout import PAGE, LocalReplica, Part, PoolSet, RemoteReplica

_PART_FILE = re.compile(r"([0-9]{1,6})\.pmem")


def resolve(pool_set: PoolSet, *, create: bool = False) -> PoolSet:
    """Replace directories by files, and ``AUTO`` by sizes.

    Parameters
    ----------
    pool_set : PoolSet
        As it was read.
    create : bool
        The pool is to be created: each directory without parts gets one.

    Returns
    -------
    PoolSet
        With files and devices of known size as parts; `pool_set` itself if that was so already.

    Raises
    ------
    PoolSetMalformed
        Files and directories, or files and devices, are mixed, directories are used without
        ``SINGLEHDR``, or ``AUTO`` is used for something other than a device DAX.
    PoolSetNotFound
        A pool that is to be opened has no parts in its directories, or one is missing.
    """
    copies = pool_set.local_copies
    kinds = {part.path: _kind(part) for parts in copies for part in parts}
    _check_kinds(pool_set, kinds)
    if "directory" in kinds.values():
        resolved = [_files_in(pool_set, parts, create=create) for parts in copies]
    elif "device" in kinds.values() or any(part.size is None for p in copies for part in p):
        resolved = [[_with_size(pool_set, part) for part in parts] for parts in copies]
    else:
        return pool_set
    first, *further = resolved
    spare = iter(further)
    replicas: list[LocalReplica | RemoteReplica] = [
        replace(each, parts=next(spare)) if isinstance(each, LocalReplica) else each
        for each in pool_set.replicas
    ]
    return replace(pool_set, parts=first, replicas=replicas)


def present(pool_set: PoolSet) -> list[str]:
    """Return the paths of a pool's own parts, in order; in directories, those that exist."""
    numbered: list[tuple[int, str]] = []
    paths: list[str] = []
    for part in pool_set.parts:
        if _kind(part) == "directory":
            found = _numbered_files(pool_set, part)
            numbered.extend((index, each.path) for index, each in found)
        else:
            paths.append(part.path)
    return [path for _, path in sorted(numbered)] + paths


def part_file_name(index: int) -> str:
    """Return the name of part `index` in a directory of a pool set."""
    return f"{index:06}.pmem"


def _kind(part: Part) -> str:
    try:
        mode = os.stat(part.path).st_mode
    except OSError:
        return "file"  # opening or creating it will report what is wrong
    if stat.S_ISDIR(mode):
        return "directory"
    return "device" if stat.S_ISCHR(mode) else "file"


def _check_kinds(pool_set: PoolSet, kinds: dict[str, str]) -> None:
    first, *others = [part for parts in pool_set.local_copies for part in parts]
    wanted = kinds[first.path]
    if wanted == "directory" and "SINGLEHDR" not in pool_set.options:
        raise PoolSetMalformed(
            f"{first.path} is a directory, and directories need OPTION SINGLEHDR",
            where=pool_set.where(first),
            hint="Add the option, or list files",
        )
    for part in others:
        kind = kinds[part.path]
        if kind != wanted and "directory" in (kind, wanted):
            raise PoolSetMalformed(
                f"{part.path} is a {kind}, but {first.path} is a {wanted}",
                where=pool_set.where(part),
                hint="Use directories for all parts or for none",
            )
    for parts in pool_set.local_copies:
        for part in parts[1:]:
            if (kinds[part.path] == "device") != (kinds[parts[0].path] == "device"):
                raise PoolSetMalformed(
                    f"{part.path} is a {kinds[part.path]}, but {parts[0].path} is a "
                    f"{kinds[parts[0].path]}",
                    where=pool_set.where(part),
                    hint="Use device DAX for all parts of one copy or for none",
                )
        _check_alignment(pool_set, parts, kinds)


def _check_alignment(pool_set: PoolSet, parts: Sequence[Part], kinds: dict[str, str]) -> None:
    if kinds[parts[0].path] != "device" or len(parts) == 1 or pool_set.options:
        return
    for part in parts:
        # The header of a further part is skipped by mapping from the second page.
        alignment = _device_number(part.path, "align")
        if alignment is not None and alignment != PAGE:
            raise PoolSetMalformed(
                f"{part.path} can be mapped only in steps of {alignment} bytes, which leaves no "
                f"way to skip its header",
                where=pool_set.where(part),
                hint="Add OPTION SINGLEHDR",
            )


def _with_size(pool_set: PoolSet, part: Part) -> Part:
    size = _device_number(part.path, "size")
    if part.size is None and size is None:
        raise PoolSetMalformed(
            f"{pool_set.called(part)} is not a device DAX, so its size cannot be AUTO",
            where=pool_set.where(part),
            hint="Write the size of the file instead of AUTO",
        )
    if size is not None and part.size not in (None, size):
        raise PoolSetMalformed(
            f"{pool_set.called(part)} has {size} bytes, not {part.size}",
            where=pool_set.where(part),
            hint="Write AUTO instead of the size",
        )
    return part if size is None else replace(part, size=size)


def _device_number(path: str, name: str) -> int | None:
    """Return an attribute of a device DAX, or None if it does not have it."""
    try:
        about = os.stat(path)
        if not stat.S_ISCHR(about.st_mode):
            return None
        number = f"{os.major(about.st_rdev)}:{os.minor(about.st_rdev)}"
        with open(f"/sys/dev/char/{number}/{name}", encoding="ascii") as file:
            return int(file.read().strip(), 0)
    except (OSError, ValueError):
        return None


def _files_in(pool_set: PoolSet, directories: Sequence[Part], *, create: bool) -> list[Part]:
    found: dict[int, Part] = {}
    _check_different(pool_set, directories)
    for directory in directories:
        for index, part in _numbered_files(pool_set, directory):
            twin = found.setdefault(index, part)
            if twin is not part:
                raise PoolSetMalformed(
                    f"part {index} exists twice: {twin.path} and {part.path}",
                    where=pool_set.where(directory),
                    hint="Find out which one belongs to the pool, and move the other away",
                )
    if not found and create:
        return [_new_file(pool_set, directory, i) for i, directory in enumerate(directories)]
    for index in range(max(found, default=0) + 1):
        if index not in found:
            raise PoolSetNotFound(
                f"{part_file_name(index)} is in none of the directories of the pool set",
                where=pool_set.where(directories[0]),
                hint="Restore the part from a replica" if found else "Create the pool first",
            )
    return [found[index] for index in sorted(found)]


def _check_different(pool_set: PoolSet, directories: Sequence[Part]) -> None:
    seen: dict[tuple[int, int], Part] = {}
    for directory in directories:
        try:
            about = os.stat(directory.path)
        except OSError as error:
            where = pool_set.where(directory)
            raise from_oserror(error, f"cannot examine {directory.path}", where=where) from error
        twin = seen.setdefault((about.st_dev, about.st_ino), directory)
        if twin is not directory:
            raise PoolSetMalformed(
                f"{directory.path} and {twin.path} are the same directory",
                where=pool_set.where(directory),
                hint="List it once, with the sum of the sizes",
            )


def _numbered_files(pool_set: PoolSet, directory: Part) -> list[tuple[int, Part]]:
    files: list[tuple[int, Part]] = []
    try:
        with os.scandir(directory.path) as entries:
            for entry in entries:
                match = _PART_FILE.fullmatch(entry.name)
                if match and entry.is_file():
                    part = Part(entry.stat().st_size, entry.path, directory.line)
                    files.append((int(match[1]), part))
    except OSError as error:
        where = pool_set.where(directory)
        raise from_oserror(error, f"cannot read {directory.path}", where=where) from error
    return files


def _new_file(pool_set: PoolSet, directory: Part, index: int) -> Part:
    if directory.size is None:
        raise PoolSetMalformed(
            f"{directory.path} is a directory, so its size cannot be AUTO",
            where=pool_set.where(directory),
            hint="Write how many bytes the pool may take there",
        )
    path = os.path.join(directory.path, part_file_name(index))
    return Part(directory.size // PAGE * PAGE, path, directory.line)
