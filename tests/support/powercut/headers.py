"""Headers that are replaced: after a cut all parts have the old attributes, or all the new ones."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rpmem.errors import HeaderError, PoolSetError, RpmemError
from rpmem.files import poolset
from rpmem.files.header import INCOMPAT_SDS, INCOMPAT_SINGLEHDR, PoolAttributes
from rpmem.files.poolfiles import PoolFiles
from rpmem.files.poolset import Part, PoolSet
from rpmem.files.removal import remove_parts
from tests.support.powercut.images import Replay
from tests.support.powercut.model import Loss
from tests.support.powercut.recorder import Event, Recorder, recording
from tests.support.powercut.runs import SHM

_SIZE = 2 << 20
_ONLY = "there"

Attributes = PoolAttributes | None


@dataclass
class _Moment:
    what: str
    end: int
    #: What may be there meanwhile, and what must be there then; None: no pool.
    before: list[Attributes]
    after: Attributes


def _pool_set(root: str, parts: int, options: frozenset[str]) -> PoolSet:
    paths = [os.path.join(root, _ONLY, f"part{index}") for index in range(parts)]
    return PoolSet(parts=[Part(_SIZE, path) for path in paths], options=options)


def run_headers(
    seed: int,
    *,
    images: int = 150,
    skips: Callable[[Event], bool] = lambda event: False,
    counts: Counter[str] | None = None,
) -> int:
    """Create, change, close, open and remove by seed, and cut; return how many images there were.

    Raises
    ------
    Loss
        With the seed, and where it was.
    """
    dice = random.Random(seed)
    root = tempfile.mkdtemp(prefix="rpmem-headers-", dir=SHM)
    found: Counter[str] = Counter() if counts is None else counts
    try:
        os.mkdir(os.path.join(root, _ONLY))
        recorder = Recorder(root, (_ONLY,), skips=skips)
        options = frozenset({"SINGLEHDR"}) if dice.random() < 0.3 else frozenset()
        parts = dice.randint(1, 3)
        with recording(recorder):
            moments = _run(recorder, dice, _pool_set(root, parts, options))
        replay = Replay(recorder)
        image = os.path.join(root, "image")
        for position in sorted(dice.randint(1, moments[-1].end) for _ in range(images)):
            replay.advance(position)
            moment = next(each for each in moments if position <= each.end)
            possible = [moment.after]
            if position < moment.end:
                possible += moment.before
            shutil.rmtree(image, ignore_errors=True)
            os.makedirs(os.path.join(image, _ONLY))
            replay.write(_ONLY, os.path.join(image, _ONLY), dice, dice.choice(("torn", "lost")))
            where = f"seed {seed}: {moment.what}, at event {position} of ..{moment.end}"
            _check(_pool_set(image, parts, options), possible, where, found)
        recorder.close()
    finally:
        shutil.rmtree(root, ignore_errors=True)
    return images


def _run(recorder: Recorder, dice: random.Random, wanted: PoolSet) -> list[_Moment]:
    moments: list[_Moment] = []
    there: Attributes = None
    pool: PoolFiles | None = None
    single = INCOMPAT_SINGLEHDR if "SINGLEHDR" in wanted.options else 0

    def some() -> PoolAttributes:
        incompat = single | (INCOMPAT_SDS if sds else 0)
        names: Any = {name: dice.randbytes(16) for name in ("poolset_uuid", "uuid", "user_flags")}
        return PoolAttributes(
            signature=b"CUTS%04x" % dice.getrandbits(16), major=1, incompat=incompat, **names
        )

    def note(what: str, after: Attributes) -> None:
        nonlocal there
        end = recorder.mark(what)
        moments.append(_Moment(what, end, [there], after))
        there = after

    sds = dice.random() < 0.3
    for _ in range(12):
        if pool is None and there is None:
            given = some()
            pool = PoolFiles.create(wanted, attributes=given)
            note("create", pool.attributes)
        elif pool is None:
            if dice.random() < 0.2:
                remove_parts(wanted)
                note("remove", None)
                continue
            pool = PoolFiles.open(wanted)
            note("open", there)
        elif dice.random() < 0.75:
            pool.set_attributes(some())
            note("set_attributes", pool.attributes)
        else:
            pool.close()
            pool = None
            note("close", there)
    if pool is not None:
        pool.close()
    return moments


def _check(wanted: PoolSet, possible: list[Attributes], where: str, counts: Counter[str]) -> None:
    for turn in ("opened", "opened again"):
        try:
            with PoolFiles.open(wanted) as pool:
                if pool.attributes is None or pool.attributes not in possible:
                    raise Loss(f"{where}: {turn}, it has {pool.attributes}, not one of {possible}")
                possible = [pool.attributes]
        except (PoolSetError, HeaderError) as error:
            if None not in possible:
                raise Loss(f"{where}: {turn}: {type(error).__name__}: {error}") from error
            counts[f"{where.split(',')[0].split()[-1]}: {type(error).__name__}"] += 1
            _make_anew(wanted, where)
            return
    counts["opened"] += 1


def _make_anew(wanted: PoolSet, where: str) -> None:
    given = PoolAttributes(
        signature=b"ANEW",
        major=1,
        incompat=INCOMPAT_SINGLEHDR if "SINGLEHDR" in wanted.options else 0,
    )
    try:
        if any(os.path.lexists(part.path) for part in wanted.parts):
            remove_parts(wanted, force=True)
        PoolFiles.create(wanted, attributes=given).close()
        with PoolFiles.open(poolset.resolve(wanted)) as pool:
            if pool.attributes is None or pool.attributes.signature.rstrip(b"\0") != b"ANEW":
                raise Loss(f"{where}: made anew, it has {pool.attributes}")
    except RpmemError as error:
        raise Loss(f"{where}: it cannot be made anew: {error}") from error
