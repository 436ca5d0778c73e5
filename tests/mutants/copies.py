"""Mistakes where a pool keeps records of its copies: keepers, assemblies, changes of the set."""

from __future__ import annotations

from tests.mutants import Mutant

_RECORDED = ("tests/unit/pool/test_recorded_pools.py",)
_KEEPERS = ("tests/unit/pool/test_keepers.py",)
_POOL = (
    "tests/unit/pool/test_pool_steps.py",
    "tests/unit/pool/test_recorded_pools.py",
    "tests/integration/test_pool.py",
)

_WORLD = ("tests/unit/epochs/test_world.py::test_random_histories_go_as_the_model_says[0]",)

MUTANTS = (
    # --- copies put back ----------------------------------------------------------------------
    Mutant(
        "an older image of the local copy is a source",
        "standing",
        " and not rolled_back:",
        ":",
        _WORLD,
    ),
    Mutant(
        "a copy that never wrote its epoch counts as put back",
        "_rolled_back",
        "was_own and ",
        "",
        _WORLD,
    ),
    Mutant(
        "a copy whose writer died counts as put back",
        "_rolled_back",
        " and other.mark is Mark.CLEAN",
        "",
        _WORLD,
    ),
    Mutant(
        "a copy that is discarded within its epoch does not join it",
        "Members._admit",
        " or discard:",
        ":",
        _WORLD,
    ),
    # --- keepers ------------------------------------------------------------------------------
    Mutant(
        "a local copy whose record was cut off counts as clean",
        "LocalKeeper.clean",
        "self._kept.settled and ",
        "",
        _KEEPERS,
    ),
    Mutant(
        "a local copy that was not closed counts as clean",
        "LocalKeeper.clean",
        " and record.mark is Mark.CLEAN",
        "",
        (*_KEEPERS, *_POOL),
    ),
    Mutant(
        "a record that was cut off here stays cut off",
        "LocalKeeper.settle",
        "self._kept.settle()",
        "return",
        _KEEPERS,
    ),
    Mutant(
        "the local copy takes any record",
        "LocalKeeper.write",
        "        _check(self.record, record, self.named, discard=discard)\n",
        "",
        _KEEPERS,
    ),
    Mutant(
        "a medium that refused data gets a record",
        "LocalKeeper.write",
        "if self._region.refused:",
        "if False:",
        (*_KEEPERS, *_RECORDED),
    ),
    Mutant(
        "a record is changed upon one that was cut off",
        "Kept.put",
        "        self.settle()\n",
        "",
        _KEEPERS,
    ),
    Mutant(
        "two changes of a record in one session count as one",
        "Kept.put",
        "        self._sequence += 1\n",
        "",
        _KEEPERS,
    ),
    Mutant(
        "memory claims a record that the medium refused",
        "LocalKeeper._store",
        "            self._medium.store(RECORD_OFFSET, before)\n",
        "",
        (*_KEEPERS, *_RECORDED),
    ),
    Mutant(
        "a replica whose record could not be written stays in use",
        "_or_lost.__exit__",
        "self._replica.on_failure(error)",
        "pass",
        (*_KEEPERS, *_POOL),
    ),
    Mutant(
        "a replica whose record was interrupted stays in use",
        "_or_lost.__exit__",
        'self._replica.give_up("a change of its record was interrupted")',
        "pass",
        _KEEPERS,
    ),
    Mutant(
        "a record is written over lanes although what is there is damaged",
        "LaneKeeper.write",
        "if self.damage is not None and not discard:",
        "if False:",
        _KEEPERS,
    ),
    Mutant(
        "any record is written over lanes",
        "LaneKeeper.write",
        "        _check(self.record, record, self.named, discard=discard)\n",
        "",
        _KEEPERS,
    ),
    Mutant(
        "a record that was cut off stays cut off behind PMDK's rpmemd",
        "LaneKeeper.__init__",
        "self._kept.settle()",
        "pass",
        _KEEPERS,
    ),
    Mutant(
        "the end of a record is not sent",
        "LaneKeeper._send",
        "range(0, len(words), _WORD)",
        "range(0, len(words) - _WORD, _WORD)",
        _KEEPERS,
    ),
    # --- assemblies ---------------------------------------------------------------------------
    Mutant(
        "a replica of any pool takes part",
        "_is_current",
        "    resync.check_identity(keeper.replica, found, layout)\n",
        "",
        _POOL,
    ),
    Mutant(
        "a replica with another superblock counts as equal",
        "_is_current",
        "return found == layout",
        "return True",
        _POOL,
    ),
    Mutant(
        "a replica whose record is damaged is overwritten",
        "_is_current",
        "if keeper.damage is not None and keeper.named not in discarded:",
        "if False:",
        _POOL,
    ),
    # --- changes of the set -------------------------------------------------------------------
    Mutant(
        "copies that may differ in the pool's own records stay in use",
        "Copies.replicate_many",
        'replica.give_up("a change of the pool\'s own records was interrupted")',
        "pass",
        _POOL,
    ),
    Mutant(
        "a replica that is detached does not record it",
        "Copies._remove",
        "self._quietly(keeper.leave)",
        "pass",
        _POOL,
    ),
    Mutant(
        "a replica that was lost has left in order",
        "Copies._remove",
        "left=left",
        "left=True",
        _POOL,
    ),
    Mutant(
        "an epoch is offered beside a replica that is lost",
        "Copies._remove",
        "            self._raise_losses()\n",
        "",
        _POOL,
    ),
    Mutant(
        "a copy is sent everything beside a replica that is lost",
        "Copies.attach",
        "                self._raise_losses()\n",
        "",
        _POOL,
    ),
    Mutant(
        "a copy that was just made is not told what it becomes",
        "Copies.attach",
        "if create:",
        "if False:",
        _POOL,
    ),
    Mutant(
        "what an attach created stays when it fails",
        "Copies.attach",
        "assembly.dismiss(joining, remove=create)",
        "assembly.dismiss(joining)",
        _POOL,
    ),
    Mutant(
        "a copy whose attach failed is a member",
        "Copies._join",
        "                self.members.others.remove(keeper)\n",
        "                pass\n",
        _POOL,
    ),
    Mutant(
        "no epoch replaces one that was offered in vain",
        "Copies._join",
        "self._quietly(self.members.begin)",
        "pass",
        _POOL,
    ),
    Mutant(
        "the replicas of a copy that refused are not marked",
        "Copies._left_behind",
        "                alone.finish()\n",
        "",
        _POOL,
    ),
    Mutant(
        "a replica that is lost goes on without the local copy",
        "Copies._left_behind",
        "intact = self._intact()",
        "intact = list(self.members.others)",
        _POOL,
    ),
    Mutant(
        "a new pool begins its epoch twice",
        "Copies.found",
        "            self.members.found()\n",
        "            self.members.found()\n            self.members.begin()\n",
        _POOL,
    ),
)
