"""A user's arguments for replicas, sizes and modes."""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable
from typing import Any, TypeAlias

from rpmem.base.sizes import parse_size
from rpmem.base.target import ReplicaSpec, Target
from rpmem.base.values import Record
from rpmem.epochs.record import MOST_MEMBERS
from rpmem.errors import UsageError
from rpmem.files.drafts import PRIVATE

_ALL_MAY = 0o777
_UUID = re.compile(r"[0-9a-fA-F]{32}")

ReplicaLike: TypeAlias = str | tuple[str | Target, str] | ReplicaSpec


def replica_spec(replica: ReplicaLike, parts: int = 0) -> ReplicaSpec:
    """Return the spec for a string, a pair or a spec.

    Parameters
    ----------
    replica : str, tuple or ReplicaSpec
        ``"TARGET NAME.set"``, ``(target, "NAME.set")`` or a spec.
    parts : int
        Used for a spec whose own `parts` is 0.
    """
    if isinstance(replica, str):
        spec = ReplicaSpec.parse(replica)
    elif isinstance(replica, ReplicaSpec):
        spec = replica
    elif isinstance(replica, tuple) and len(replica) == 2:
        target, name = replica
        spec = ReplicaSpec(Target.of(target), name)
    else:
        raise UsageError(
            f"{replica!r} is not a replica",
            hint="Write 'TARGET NAME.set' or ('TARGET', 'NAME.set')",
        )
    return spec.replaced(parts=spec.parts or parts)


def replica_specs(
    replicas: Iterable[ReplicaLike] | ReplicaLike, parts: int = 0
) -> list[ReplicaSpec]:
    """Return the specs of several replicas; a single one need not be in a list."""
    several: Any = [replicas] if isinstance(replicas, str | ReplicaSpec) else replicas
    specs = [replica_spec(replica, parts) for replica in several]
    for index, spec in enumerate(specs):
        if spec in specs[:index]:
            raise UsageError(f"the replica {spec} is given twice")
    if len(specs) >= MOST_MEMBERS:
        raise UsageError(f"a pool has at most {MOST_MEMBERS} copies")
    return specs


def source_specs(replicas: Iterable[ReplicaLike] | ReplicaLike) -> list[ReplicaSpec]:
    """Return the specs of replicas to restore from; a single one may be a pair, too."""
    several: Any = replicas
    if isinstance(replicas, tuple) and len(replicas) == 2:
        first, second = replicas
        # Two replicas in a tuple are two strings with a blank, or two of another kind.
        if isinstance(first, str | Target) and isinstance(second, str) and " " not in second:
            several = [replicas]
    return replica_specs(several)


def named_among(
    specs: Iterable[ReplicaSpec], wanted: Iterable[ReplicaLike] | ReplicaLike
) -> list[ReplicaSpec]:
    """Return the specs of the wanted replicas; `UsageError` if one is not among `specs`."""
    known = {(spec.target, spec.pool_set) for spec in specs}
    found = replica_specs(wanted)
    for spec in found:
        if (spec.target, spec.pool_set) not in known:
            raise UsageError(
                f"{spec} is not one of the replicas",
                hint="discard names those of the replicas that may be overwritten",
            )
    return found


class LostCopies(Record):
    """Copies that a person gives up, whatever only they hold.

    Parameters
    ----------
    copies : frozenset of bytes
        Uuids.
    specs : tuple of ReplicaSpec
        Where others were.
    """

    copies: frozenset[bytes] = frozenset()
    specs: tuple[ReplicaSpec, ...] = ()


def lost_copies(lost: Iterable[ReplicaLike] | ReplicaLike) -> LostCopies:
    """Return the copies that are named as lost: replicas, or uuids of copies in hexadecimal."""
    several: Any = [lost] if isinstance(lost, str | ReplicaSpec) else list(lost)
    uuids = [each for each in several if isinstance(each, str) and _UUID.fullmatch(each)]
    specs = replica_specs([each for each in several if each not in uuids])
    return LostCopies(frozenset(map(bytes.fromhex, uuids)), tuple(specs))


def mode_of(mode: int) -> int:
    """Return the permissions of new files, after checking that their owner can use them.

    Raises
    ------
    UsageError
        `mode` is not a number of nine bits, or excludes the owner.
    """
    try:
        value = operator.index(mode)
    except TypeError:
        value = -1
    if not 0 <= value <= _ALL_MAY or value & PRIVATE != PRIVATE:
        raise UsageError(
            f"{mode!r} is not a mode for the files of a pool",
            hint="Write 0o600, or 0o640 if the group may read; the owner must be able to read "
            "and write",
        )
    return value


def size_of(size: int | str | None) -> int | None:
    """Return a size in bytes, given as an int or as a str in the notation of poolset(5).

    Raises
    ------
    UsageError
        `size` is not a positive number of bytes.
    """
    if size is None:
        return None
    if isinstance(size, str):
        return parse_size(size)
    try:
        value = operator.index(size)
    except TypeError:
        value = 0
    if value <= 0:
        raise UsageError(f"{size!r} is not a size", hint='Write 67108864 or "64MiB"')
    return value
