"""Verify: no false alarm, nothing missed that can be known, and repair of one side only."""

from __future__ import annotations

from typing import Final

from tests.mutants import Mutant

_HERE: Final = "tests/integration/test_verified.py::"
_RULES: Final = ("tests/unit/pool/test_verification.py",)
_BESIDE: Final = (f"{_HERE}test_beside_threads_that_store", *_RULES)
_FOUND: Final = (f"{_HERE}test_a_thousand_bits", *_RULES)

MUTANTS: Final = (
    # --- rules --------------------------------------------------------------------------------
    Mutant(
        "what calls have under way counts as seen",
        "Verification.take",
        "        stable = equal & ~seen.moving\n",
        "        stable = equal\n",
        _RULES,
    ),
    Mutant(
        "a page that was sent meanwhile is still known",
        "Verification.take",
        "        self.known[here][seen.moving] = False\n",
        "",
        _RULES,
    ),
    Mutant(
        "a page that was stored to meanwhile counts as untouched",
        "Verification.take",
        "quiet=stable & ~seen.stored",
        "quiet=stable",
        _RULES,
    ),
    Mutant(
        "a page that was stored to is not told from a wrong one",
        "Verification.take",
        "touched = self.stored[here] | self.doubtful[here]",
        "touched = self.doubtful[here]",
        _RULES,
    ),
    Mutant(
        "what a replica has to have does not matter",
        "Verification.take",
        "& (expected | ~self.known[here])",
        "",
        _RULES,
    ),
    Mutant(
        "a page that was stored to while a call sent it is taken for wrong",
        "Verification.judge",
        "        if touched:\n",
        "        if touched and all(np.array_equal(each, theirs[0]) for each in theirs):\n",
        _RULES,
    ),
    Mutant(
        "one of the replicas may be equal",
        "Verification.take",
        "            equal &= same_digests(theirs, seen.mine)\n",
        "            equal = same_digests(theirs, seen.mine)\n",
        _RULES,
    ),
    Mutant(
        "what differs is not expected for the next pass",
        "Verification.settle",
        "        np.copyto(self._expected[here], digests, where=stable[:, None])\n",
        "",
        _RULES,
    ),
    Mutant(
        "what was stored to stays so",
        "Verification.settle",
        "        self.stored[here] &= ~quiet\n",
        "",
        _RULES,
    ),
    Mutant(
        "a page in a call that was interrupted is wrong",
        "Verification.judge",
        "        if unsettled:\n            return Verdict(Standing.UNPERSISTED)\n",
        "",
        (f"{_HERE}test_a_call_that_was_interrupted_is_no_difference", *_RULES),
    ),
    Mutant(
        "a local copy that was stored to is wrong",
        "Verification._against",
        "if not touched and not",
        "if not",
        _RULES,
    ),
    Mutant(
        "half of the copies outvote the others",
        "_outvoted",
        "2 * votes <= len(copies)",
        "2 * votes < len(copies)",
        _RULES,
    ),
    # --- what is seen -------------------------------------------------------------------------
    Mutant(
        "calls that were under way before are forgotten",
        "Verifier._compare",
        '        self._copies.call("under_way", self._moving)\n',
        "",
        (f"{_HERE}test_what_a_flush_sends_later_is_no_difference",),
    ),
    Mutant(
        "what was sent is not noted",
        "Verifier._note_sent",
        "        self._state.known[units] = False\n",
        "",
        (f"{_HERE}test_a_page_that_was_sent_since_and_stored_to_cannot_be_known",),
    ),
    Mutant(
        "what was stored is not noted",
        "Verifier._note_stores",
        "        self._state.stored[units] = True\n",
        "",
        _BESIDE[:1],
    ),
    Mutant(
        "a page that the kernel dropped was stored to just now",
        "Verifier._stored_by_now",
        "return stored & could",
        "return stored",
        (f"{_HERE}test_a_page_that_the_kernel_drops_is_not_one_that_was_stored_to",),
    ),
    Mutant(
        "a page that the kernel dropped stays one that was stored to",
        "Verifier._stored_by_now",
        "        self._state.stored[here] &= could\n",
        "",
        (f"{_HERE}test_a_page_that_the_kernel_drops_is_not_one_that_was_stored_to",),
    ),
    Mutant(
        "nobody was given anything",
        "Verifier._watch",
        "state.doubtful[:] = before & given",
        "state.doubtful[:] = False & given",
        (f"{_HERE}test_stored_before_the_first_time",),
    ),
    Mutant(
        "what was known of other replicas is believed of a new one",
        "Verifier._start",
        "            state.known[:] = False\n",
        "",
        (f"{_HERE}test_a_replica_that_was_sent_what_is_not_persisted",),
    ),
    Mutant(
        "a pass that was interrupted leaves what it knew",
        "Verifier._alone",
        "                self._state.known[:] = False\n                self._sees = False\n",
        "",
        (f"{_HERE}test_signals_end_a_pass_and_nothing_else",),
    ),
    Mutant(
        "the answer to an interrupted question is not waited for",
        "Channel._ask",
        "self._machine.state not in _BUSY or self._ended",
        "True",
        (f"{_HERE}test_signals_end_a_pass_and_nothing_else",),
    ),
    Mutant(
        "a page is looked at while calls go on",
        "engine_hold",
        "outcome.lane = enter(engine, wanted, -1, outcome)",
        "outcome.lane = take_lane(engine, -1, outcome)",
        ("tests/unit/engine/test_held.py",),
    ),
    Mutant(
        "room that nothing uses matters",
        "Verifier._report",
        "        if not differing and not verdict.beneath:\n            return Standing.EQUAL\n",
        "",
        (f"{_HERE}test_a_page_of_which_some_is_unused",),
    ),
    # --- repair -------------------------------------------------------------------------------
    Mutant(
        "the local copy is repaired while it is used",
        "Verifier._refuse_if_in_use",
        "if live or not",
        "if not",
        (f"{_HERE}test_the_local_copy_is_not_repaired_while_it_is_used",),
    ),
    Mutant(
        "a repair goes to every replica",
        "Held.send",
        "engine_begin(&core.engine, &operation, self.lane, <int32_t> index, &outcome)",
        "engine_begin(&core.engine, &operation, self.lane, -1, &outcome)",
        (f"{_HERE}test_one_side_is_repaired",),
    ),
    Mutant(
        "a replica that is wrong repairs the local copy",
        "Verifier._repair",
        "if verdict.beneath or number not in verdict.wrong",
        "if True",
        (f"{_HERE}test_the_right_replica_repairs_the_local_copy",),
    ),
    Mutant(
        "a repaired page is missed by no copy that is away",
        "Verifier._repair",
        "                self._copies.absent.missed([(offset, length)])\n",
        "",
        (f"{_HERE}test_what_is_repaired_is_missed_by_a_copy_that_is_away",),
    ),
    # --- media --------------------------------------------------------------------------------
    Mutant(
        "what is beneath the cache is not compared",
        "Verifier._judged",
        "if verdict.standing is not Standing.DIFFERENT and rotten:",
        "if False:",
        ("tests/integration/test_verified_media.py",),
    ),
    Mutant(
        "the cache is read for the medium",
        "_read",
        "os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC",
        "os.O_RDONLY | os.O_CLOEXEC",
        ("tests/integration/test_verified_media.py",),
    ),
    # --- a pool's end -------------------------------------------------------------------------
    Mutant(
        "what nobody could have stored to is sent at the end",
        "Tracking.last_look",
        "                found[1].keep(self._touched)\n",
        "                pass\n",
        ("tests/unit/cli/test_cli_verify.py",),
    ),
    Mutant(
        "the place of a deleted array counts as one that nobody stored to",
        "Verifier._stored_by_now",
        "            self._state.doubtful[self._places.units(self._arrays.deleted())] = True\n",
        "",
        ("tests/integration/test_verified_places.py",),
    ),
    Mutant(
        "a place is no longer doubtful once its array is gone",
        "Verifier._stored_by_now",
        "self._state.doubtful[here] |= stored",
        "self._state.doubtful[here] = stored",
        ("tests/integration/test_verified_places.py",),
    ),
)
