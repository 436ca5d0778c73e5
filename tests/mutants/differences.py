"""Mistakes where a copy is brought up to date by what differs."""

from __future__ import annotations

from tests.mutants import Mutant

_MACHINE = ("tests/unit/pool/test_differences.py",)
_TARGET = ("tests/unit/rpmemd/test_asked_digests.py",)
_UNITS = ("tests/unit/memory/test_unit_digests.py",)
_CONTROL = ("tests/unit/control/test_control_digests.py",)
_WHOLE = ("tests/integration/test_brought_up_to_date.py",)

MUTANTS = (
    # --- what is asked for and sent -----------------------------------------------------------
    Mutant(
        "the pages of blocks that differ are not asked for",
        "Differences.take",
        "for each in _questions(*pair, PAGE)",
        "for each in ()",
        _MACHINE,
    ),
    Mutant(
        "blocks that differ are sent as a whole",
        "Differences.take",
        "        if asked.unit == BLOCK:\n",
        "        if False:\n",
        _MACHINE,
    ),
    Mutant(
        "a last page that is not whole is left out",
        "_differing",
        "high = first * asked.unit, min(behind * asked.unit, asked.length)",
        "high = first * asked.unit, min(behind * asked.unit, asked.length // PAGE * PAGE)",
        _MACHINE,
    ),
    Mutant(
        "a last page that is not whole is sent beyond its end",
        "_differing",
        "min(behind * asked.unit, asked.length)",
        "behind * asked.unit",
        _MACHINE,
    ),
    Mutant(
        "only the first word of a digest is compared",
        "_differing",
        "(ours != others).any(axis=1)",
        "(ours != others)[:, 0]",
        _MACHINE,
    ),
    Mutant(
        "the rest of a long range is not asked about",
        "_questions",
        "for offset in range(begin, end, most):",
        "for offset in range(begin, end, most)[:1]:",
        _MACHINE,
    ),
    Mutant(
        "pages are never asked for at once",
        "Differences.many",
        "2 * len(self._touched) > self._blocks",
        "False",
        _MACHINE,
    ),
    Mutant(
        "what differs in the last piece is not sent",
        "send_differences",
        """        if first + length == end:
            send()
""",
        "",
        _WHOLE,
    ),
    Mutant(
        "only the first piece is compared",
        "send_differences",
        "for first, length in chunks(begin, end, what, progress):",
        "for first, length in list(chunks(begin, end, what, progress))[:1]:",
        _WHOLE,
    ),
    Mutant(
        "everything is sent although digests could be taken",
        "push",
        "if replica.compares:",
        "if False:",
        _WHOLE,
    ),
    Mutant(
        "words of a copy that counts may be torn",
        "push",
        "replica.persist_many(ranges, relaxed=not strict)",
        "replica.persist_many(ranges, relaxed=True)",
        _WHOLE,
    ),
    Mutant(
        "a copy that counts is taken for a mixture",
        "_counts",
        "keeper.record.mark is not Mark.JOINING",
        "False",
        _WHOLE,
    ),
    # --- the target ---------------------------------------------------------------------------
    Mutant(
        "digests are taken of what is visible only",
        "digests_of",
        "    pool.region.persist(offset, length)\n",
        "",
        _TARGET,
    ),
    Mutant(
        "the first byte only is made durable",
        "digests_of",
        "region.persist(offset, length)",
        "region.persist(offset, 1)",
        _TARGET,
    ),
    Mutant(
        "digests are taken of what a copy keeps for itself",
        "digests_of",
        "offset < floor or ",
        "",
        _TARGET,
    ),
    Mutant(
        "digests are taken behind the pool",
        "digests_of",
        " or offset + length > size",
        "",
        _TARGET,
    ),
    # --- digests ------------------------------------------------------------------------------
    Mutant(
        "the key does not count",
        "units_digest",
        "data + at, min(unit, length - at), secret, SECRET_SIZE))",
        "data + at, min(unit, length - at), data, 0))",
        _UNITS,
    ),
    Mutant(
        "a last unit is hashed beyond its end",
        "units_digest",
        "min(unit, length - at)",
        "unit",
        _UNITS,
    ),
    # --- messages -----------------------------------------------------------------------------
    Mutant(
        "a wrong number of digests is taken",
        "InitiatorSession._digests_taken",
        "if mismatch := answer.mismatch(self._request):",
        "if False and (mismatch := answer.mismatch(self._request)):",
        (*_CONTROL, *_WHOLE),
    ),
    Mutant(
        "digests that nobody asked for are taken",
        "InitiatorSession._digests_taken",
        "if not isinstance(self._request, Digest):",
        "if self._request is not None and not isinstance(self._request, Digest):",
        _CONTROL,
    ),
    Mutant(
        "as many digests as somebody wants are made",
        "Digest.complaint",
        "if self.units > MAX_UNITS:",
        "if False:",
        _CONTROL,
    ),
    Mutant(
        "a build without digests says that it has them",
        "features",
        "each not in (DIGEST, DEEP) or takes_digests",
        "True",
        (*_CONTROL, *_WHOLE),
    ),
    Mutant(
        "a refused digest ends the session at the initiator",
        "InitiatorMachine._refused",
        "SetAttributes | SetEpoch | Left | Digest",
        "SetAttributes | SetEpoch | Left",
        _CONTROL,
    ),
    Mutant(
        "a refused digest ends the session at the target",
        "TargetMachine._settle",
        "(TargetState.SETTING, TargetState.HASHING)",
        "(TargetState.SETTING,)",
        _CONTROL,
    ),
)
