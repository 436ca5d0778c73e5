"""Mistakes in how copies are made equal before they are marked as clean."""

from __future__ import annotations

from tests.mutants import Mutant

_STEPS = ("tests/unit/pool/test_settling.py",)
_SETTLED = ("tests/integration/test_settled.py",)
_FORKED = ("tests/integration/test_forked.py",)

MUTANTS = (
    # --- before the mark ----------------------------------------------------------------------
    Mutant(
        "copies are marked as they are",
        "Copies._settled",
        "                    settling.settle(self._unsettled)\n",
        "                    pass\n",
        _STEPS,
    ),
    Mutant(
        "what tracking tells is not sent",
        "Settling.settle",
        "        self._send(told)\n",
        "",
        _STEPS,
    ),
    Mutant(
        "only the first replica is compared",
        "Settling.settle",
        "            for replica in self._replicas:\n",
        "            for replica in self._replicas[:1]:\n",
        ("tests/integration/test_settled.py::test_stored_and_not_persisted",),
    ),
    Mutant(
        "what cannot be compared is not sent",
        "Settling.settle",
        "                self._send_ranges([piece])\n",
        "                pass\n",
        _SETTLED,
    ),
    Mutant(
        "a replica that cannot be compared keeps the others from being sent everything",
        "Settling.settle",
        "if all(replica.compares",
        "if not all(replica.compares",
        _SETTLED,
    ),
    Mutant(
        "the local copy is not flushed before the mark",
        "Settling.settle",
        "        for offset, length in _pieces(unflushed):\n"
        "            memory.persist(offset, length)\n",
        "",
        _STEPS,
    ),
    Mutant(
        "gaps between arrays are not the only thing that is compared besides",
        "_stretches",
        "found[-1] = found[-1][0], offset + length",
        "found[-1] = found[-1][0], offset",
        _STEPS,
    ),
    Mutant(
        "a replica that dies at the end keeps the others from being marked",
        "Copies._settled",
        "if still.memory.refused or len(self._intact()) == len(intact):",
        "if True:",
        _SETTLED,
    ),
    Mutant(
        "a target that does not answer is not lost",
        "send_differences",
        "                    replica.on_failure(error)\n",
        "                    pass\n",
        ("tests/integration/test_settled.py::test_a_replica_that_hangs_at_the_end",),
    ),
    Mutant(
        "nothing is sent from memory that was refused, but the copy goes on",
        "Copies._mark",
        "        if self.local.region.refused:\n"
        "            raise self._left_behind(self.local.region.refused)\n",
        "",
        _STEPS,
    ),
    Mutant(
        "replicas that may differ are marked without the local copy",
        "Copies._left_behind",
        "if len(intact) == 1:",
        "if True:",
        (*_STEPS, "tests/unit/pool/test_recorded_pools.py"),
    ),
    # --- what may have been stored to ---------------------------------------------------------
    Mutant(
        "arrays that were opened do not count as stored to",
        "NamedArrays._view",
        "                self._touched.add(entry.offset, entry.length)\n",
        "                pass\n",
        _SETTLED,
    ),
    Mutant(
        "the owner of a buffer stores only by arrays",
        "OpenPool.__init__",
        "keeps = parts.copy.keeps_zeros and not readonly",
        "keeps = not readonly",
        (*_SETTLED, "tests/integration/test_brought_up_to_date.py"),
    ),
    Mutant(
        "a buffer is believed to be as it was closed",
        "open_all",
        "believed=copy.keeps_zeros",
        "believed=True",
        _SETTLED,
    ),
    Mutant(
        "digests tell of memory that others store to meanwhile",
        "Tracking.last_look",
        ' or (mode == "digest" and not still)',
        "",
        _STEPS,
    ),
    Mutant(
        "what digests tell of is all that is to be flushed",
        "Tracking.last_look",
        '            return Stored(pages, pairs_of(b""), self.untold().unflushed)\n',
        '            return Stored(pages, pairs_of(b""), pairs_of(b""))\n',
        _STEPS,
    ),
    # --- views --------------------------------------------------------------------------------
    Mutant(
        "views go on storing to the files",
        "held_still",
        "            leave()\n",
        "",
        (*_STEPS, *_SETTLED),
    ),
    Mutant(
        "a store between the look and the cut is missed",
        "held_still",
        "                stored = told.untold()\n",
        "                pass\n",
        _STEPS,
    ),
    Mutant(
        "the mark is stored to memory that was left",
        "Copies._mark",
        "            own.move(still.memory)\n",
        "            pass\n",
        (*_STEPS, *_SETTLED),
    ),
    Mutant(
        "memory that views store to is sent",
        "Settling.__init__",
        "Lender(still.memory, 0) if still.apart else None",
        "None",
        _SETTLED,
    ),
    Mutant(
        "memory that views store to is compared",
        "Settling._send_differences",
        "                memory=self._still.memory,\n",
        "",
        (*_STEPS, *_SETTLED),
    ),
    Mutant(
        "memory whose views cannot be cut off is marked",
        "Copies._mark",
        "if still is None or self._has_children():",
        "if self._has_children():",
        _STEPS,
    ),
    Mutant(
        "left memory claims to be flushed",
        "run",
        "    if self.left:\n",
        "    if False:\n",
        ("tests/unit/memory/test_left.py",),
    ),
    # --- children -----------------------------------------------------------------------------
    Mutant(
        "a forked child does not keep copies from being marked",
        "Copies._has_children",
        "if not has_children(self._forks):",
        "if True:",
        _FORKED,
    ),
    Mutant(
        "a child that has ended counts for ever",
        "rpmem_forget_children",
        "POLLHUP | POLLNVAL)) == POLLHUP",
        "POLLHUP | POLLNVAL)) == POLLNVAL",
        _FORKED,
    ),
    # --- what is shown ------------------------------------------------------------------------
    Mutant(
        "what a dead writer stored is shown before it is durable",
        "open_all",
        "            copy.region.persist(0, found.catalogue.mark)\n",
        "            pass\n",
        _STEPS,
    ),
)
