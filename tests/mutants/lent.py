"""Mistakes where pages are compared with digests, and where bytes are sent from copies."""

from __future__ import annotations

from tests.mutants import Mutant

_DIGESTS = ("tests/unit/memory/test_digests.py",)
_LENT = ("tests/unit/engine/test_lent_bytes.py",)
_THREADS = ("tests/unit/pool/test_hashing.py",)

MUTANTS = (
    # --- digests ------------------------------------------------------------------------------
    Mutant(
        "a page that is sent is known before that was acknowledged",
        "digests_copy",
        "        pages_remove(digests.known, first, after)\n",
        "",
        _DIGESTS,
    ),
    Mutant(
        "the digest is that of the memory, not of what was sent",
        "digests_copy",
        "digest_of(digests, there, where.length)",
        "digest_of(digests, digests.base + where.offset, where.length)",
        _DIGESTS,
    ),
    Mutant(
        "what was not copied is confirmed",
        "digests_confirm",
        "if pages_has(digests.copied, page):",
        "if True:",
        _DIGESTS,
    ),
    Mutant(
        "an earlier copy that nobody acknowledged is confirmed",
        "PageDigests.lend",
        "        pages_remove(self.c.copied, page_at(self.c.known, offset), "
        "end_of(&self.c, offset, length))\n",
        "",
        _DIGESTS,
    ),
    Mutant(
        "what was forgotten since it was copied is confirmed",
        "digests_forget",
        "    pages_remove(digests.copied, first, end)\n",
        "",
        _DIGESTS,
    ),
    Mutant(
        "the last page that a range touches is left out",
        "end_of",
        "page_behind(digests.known, offset + length)",
        "page_at(digests.known, offset + length)",
        _DIGESTS,
    ),
    Mutant(
        "the first piece is compared twice, the last not at all",
        "Hashing._pieces",
        "cuts = [offset, *(number * PIECE",
        "cuts = [offset, *((number - 1) * PIECE",
        _THREADS,
    ),
    Mutant(
        "a failure in a helping thread is nobody's",
        "Hashing.changed",
        "            helper.result()\n",
        "            pass\n",
        _THREADS,
    ),
    # --- what is lent -------------------------------------------------------------------------
    Mutant(
        "a message refers to memory that was lent",
        "most_copied",
        "EVERY if is_lent(link, operation) else link.limits.copy_limit",
        "link.limits.copy_limit",
        _LENT,
    ),
    Mutant(
        "a request of PMDK's refers to memory that was lent",
        "is_put",
        " or is_lent(link, operation)",
        "",
        _LENT,
    ),
    Mutant(
        "an atomic write refers to memory that was lent",
        "flush",
        " or is_lent(link, operation)",
        "",
        _LENT,
    ),
    Mutant(
        "pages are copied before the call has its turn",
        "enter",
        "    cdef int32_t lane, other\n",
        "    cdef int32_t lane, other\n"
        "    if wanted.prepare != NULL:\n"
        "        wanted.prepare(wanted.context)\n",
        _LENT,
    ),
    Mutant(
        "a flush that was held back comes after a copy",
        "enter",
        " or wanted.prepare != NULL",
        "",
        _LENT,
    ),
    Mutant(
        "a range that is not lent is sent",
        "Replicator.checked_lent",
        "lender is None or ranges[i].length == 0 or is_outside(",
        "False and is_outside(",
        _LENT,
    ),
    Mutant(
        "the ranges of an interrupted call are not noted",
        "Replicator.checked_lent",
        "return self.settle(outcome, ranges, count)",
        "return self.settle(outcome, ranges, 0)",
        _LENT,
    ),
    Mutant(
        "with nothing to send a lost replica is no error",
        "Replicator.lost",
        "if group.failed or lane.state != LANE_UP:",
        "if False:",
        _LENT,
    ),
    Mutant(
        "with nothing to send a local medium that refused is no error",
        "Replicator.confirm",
        "outcome.local = self.region.c_drain()",
        "pass",
        _LENT,
    ),
    Mutant(
        "lent memory is written from where words stay whole",
        "is_written",
        " and not is_lent(link, operation)",
        "",
        ("tests/unit/engine/test_lent_bytes.py",),
    ),
)
