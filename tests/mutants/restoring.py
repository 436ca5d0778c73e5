"""Mistakes where a pool is restored: which copies are read, what counts, what is left behind."""

from __future__ import annotations

from tests.mutants import Mutant

_CHOICE = ("tests/unit/epochs/test_choosing.py",)
_MACHINE = ("tests/unit/pool/test_restoration.py",)
_WHOLE = ("tests/faults/test_restored.py",)
_PACE = ("tests/unit/pool/test_pacing.py",)
_TOGETHER = ("tests/unit/pool/test_together.py",)
_STEPS = ("tests/unit/pool/test_pool_steps.py",)

MUTANTS = (
    # --- which copies are read ----------------------------------------------------------------
    Mutant(
        "the copy that was named first is taken for the newest",
        "_newest",
        "if relation(record, reached[newest]) is Relation.AHEAD:",
        "if False:",
        (*_CHOICE, *_WHOLE),
    ),
    Mutant(
        "copies that went separate ways are restored from",
        "_newest",
        "if found not in _CONTAINED:",
        "if False:",
        _CHOICE,
    ),
    Mutant(
        "members that were not reached are not missed",
        "_check_proven",
        "if len(missing) <= lost.names:",
        "if True:",
        (*_CHOICE, *_WHOLE),
    ),
    Mutant(
        "the copy that is restored has to be named as lost",
        "_check_proven",
        "record.epoch.members[1:]",
        "record.epoch.members",
        _CHOICE,
    ),
    Mutant(
        "one name stands for all copies that are lost",
        "_check_proven",
        "if len(missing) <= lost.names:",
        "if not missing or lost.names:",
        _CHOICE,
    ),
    Mutant(
        "a copy that was named as lost is missed",
        "_check_proven",
        " and each not in lost.copies",
        "",
        _CHOICE,
    ),
    Mutant(
        "an older copy stands in for the newest, which is a mixture",
        "choose",
        "each.epoch.identity == record.epoch.identity and each.complete",
        "each.complete",
        (*_CHOICE, *_WHOLE),
    ),
    Mutant(
        "a mixture is a source for a restore",
        "choose",
        "each.epoch.identity == record.epoch.identity and each.complete",
        "each.epoch.identity == record.epoch.identity",
        (*_CHOICE, *_WHOLE, *_STEPS),
    ),
    Mutant(
        "a copy that was not closed counts like one that was",
        "choose",
        "sources = closed or sorted(",
        "sources = sorted(",
        _CHOICE,
    ),
    Mutant(
        "copies that were not closed have to be equal",
        "choose",
        "bool(closed), behind)",
        "True, behind)",
        (*_CHOICE, *_WHOLE),
    ),
    Mutant(
        "an epoch that none can come after is believed",
        "_check",
        "record.newest.number >= LARGEST_NUMBER",
        "False",
        (*_CHOICE, *_WHOLE),
    ),
    Mutant(
        "only the epoch that has begun is looked at for its number",
        "_check",
        "record.newest.number >= LARGEST_NUMBER",
        "record.epoch.number >= LARGEST_NUMBER",
        (*_CHOICE, *_WHOLE),
    ),
    Mutant(
        "a replica that cannot be reached is left out in silence",
        "_chosen",
        "        if named not in names:\n            raise failure\n",
        "        pass\n",
        _WHOLE,
    ),
    Mutant(
        "a replica that was reached counts as one that is lost",
        "_chosen",
        "len(names - found.keys())",
        "len(names)",
        _WHOLE,
    ),
    Mutant(
        "replicas of two pools are restored from",
        "_check_one_pool",
        "each.attributes.poolset_uuid != first.attributes.poolset_uuid",
        "False",
        _WHOLE,
    ),
    Mutant(
        "a replica with a damaged record is restored from",
        "_examine",
        "if keeper.damage is not None:",
        "if False:",
        (*_WHOLE, "tests/unit/pool/test_recorded_pools.py"),
    ),
    Mutant(
        "a replica changes while it is restored from",
        "_check_unchanged",
        "keeper.record != examined[keeper.named].record",
        "False",
        _STEPS,
    ),
    Mutant(
        "a copy whose superblock is damaged is read",
        "_readable",
        "resync.layout_of(keeper.replica) != layout",
        "False",
        _WHOLE,
    ),
    # --- what was read ------------------------------------------------------------------------
    Mutant(
        "bits that flip on the wire are kept",
        "Restoration.check",
        "if said[part.source] != mine:",
        "if False:",
        (*_MACHINE, *_WHOLE),
    ),
    Mutant(
        "a piece that is not what its source holds is not read again",
        "ReadBack._read",
        """            else:
                self._plan.give_back(part)
""",
        "",
        _WHOLE,
    ),
    Mutant(
        "a piece that could not be read is left out",
        "ReadBack._read",
        """            self._drop(part.source, error)
            with self._lock:
                self._plan.give_back(part)
""",
        "            self._drop(part.source, error)\n",
        _WHOLE,
    ),
    Mutant(
        "a copy that sends what it does not hold is read again and again",
        "Restoration.drop",
        "self.live.remove(source)",
        "pass",
        _WHOLE,
    ),
    Mutant(
        "one goes on in silence with a copy that sends what it does not hold",
        "ReadBack._drop",
        "replica.on_failure(error)",
        "pass",
        _WHOLE,
    ),
    Mutant(
        "one copy only says what it holds",
        "ReadBack._digests",
        "if each != part.source]",
        "if False]",
        _WHOLE,
    ),
    Mutant(
        "blocks that differ are not looked at again",
        "Restoration.check",
        "for at in differing(mine, theirs):",
        "for at in ():",
        (*_MACHINE, *_WHOLE),
    ),
    Mutant(
        "a last block that is not whole is disputed beyond its end",
        "Restoration.check",
        "min(BLOCK, part.offset + part.length - offset)",
        "BLOCK",
        _MACHINE,
    ),
    Mutant(
        "one copy is read only",
        "Restoration.take",
        "self.live[self._turn % len(self.live)]",
        "self.live[0]",
        (*_MACHINE, *_WHOLE),
    ),
    Mutant(
        "of two copies that differ one is right",
        "_majority",
        "2 * count > len(held)",
        "2 * count >= len(held)",
        (*_MACHINE, *_WHOLE),
    ),
    Mutant(
        "where nobody knows what is right, anything is",
        "Disputes.settle",
        "if right is None and in_use(offset, page.length):",
        "if False:",
        (*_MACHINE, *_WHOLE),
    ),
    Mutant(
        "a page that was read wrongly is kept",
        "Disputes.settle",
        "if right != page.read:",
        "if False:",
        (*_MACHINE, *_WHOLE),
    ),
    Mutant(
        "copies that are not equal count as equal",
        "Disputes.settle",
        "self.unequal.update(each for each in self._sources if each not in holders)",
        "pass",
        (*_MACHINE, *_WHOLE),
    ),
    Mutant(
        "what was not acknowledged is a mixture of several copies",
        "Disputes.settle",
        "right = page.held[trusted]",
        "right = _majority(page.held) or page.read",
        (*_MACHINE, *_WHOLE),
    ),
    Mutant(
        "a page is read again and not looked at",
        "ReadBack._read_again",
        "if mine == page.digest:",
        "if True:",
        _WHOLE,
    ),
    # --- the pace, and several at once --------------------------------------------------------
    Mutant(
        "a rate limit holds for each replica alone",
        "Paced.__call__",
        "self._due_s = max(self._due_s, self._seen_s) + ",
        "self._due_s = self._seen_s + ",
        _PACE,
    ),
    Mutant(
        "bytes that were not done in time are made up for",
        "Paced.__call__",
        "max(self._due_s, self._seen_s)",
        "self._due_s",
        _PACE,
    ),
    Mutant(
        "reports come from several threads at once",
        "_in_turn",
        "        with lock:\n            progress(done_bytes, total_bytes, what)\n",
        "        progress(done_bytes, total_bytes, what)\n",
        _PACE,
    ),
    Mutant(
        "copies are brought up to date one after the other",
        "Together.run",
        "ThreadPoolExecutor(len(jobs)",
        "ThreadPoolExecutor(1",
        _TOGETHER,
    ),
    Mutant(
        "where one copy fails, the others are sent everything first",
        "Together._do",
        "            self._over = True\n",
        "            pass\n",
        _TOGETHER,
    ),
    Mutant(
        "a copy that failed is in sync",
        "Together.run",
        "                raise error\n",
        "                pass\n",
        _TOGETHER,
    ),
    # --- the new copy -------------------------------------------------------------------------
    Mutant(
        "a restored copy has its name before its epoch",
        "restore",
        "        _begin(members, keepers)\n        copy.publish()\n",
        "        copy.publish()\n        _begin(members, keepers)\n",
        _STEPS,
    ),
    Mutant(
        "a restored pool begins no epoch",
        "restore",
        "        _begin(members, keepers)\n",
        "",
        (*_STEPS, *_WHOLE),
    ),
    Mutant(
        "what is restored into is never told to be a mixture",
        "_read",
        "    members.adopt()\n",
        "",
        _STEPS,
    ),
    Mutant(
        "any failure of a restore is taken for the loss of the replica",
        "_begin",
        "            if len(members.others) == before:\n                raise\n",
        "",
        _STEPS,
    ),
    Mutant(
        "a restored pool forgets the replica that was lost",
        "_bring_up_to_date",
        "    members.others = list(keepers)\n",
        "",
        (*_STEPS, *_WHOLE),
    ),
    Mutant(
        "replicas that hold less stay as they are",
        "restore",
        "        _bring_up_to_date(members, keepers, layout, absent, progress)\n",
        "        members.others = list(keepers)\n",
        _WHOLE,
    ),
    Mutant(
        "a restore that fails leaves its files",
        "restore",
        "remove=not alone",
        "remove=False",
        _WHOLE,
    ),
)
