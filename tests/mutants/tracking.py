"""Mistakes in what `persist` without a range, or a narrow one, takes for changed."""

from __future__ import annotations

from tests.mutants import Mutant

_UNIT = ("tests/unit/pool/test_tracking.py",)
_BOTH = (*_UNIT, "tests/integration/test_tracking_rules.py")
_TRIAL = ("tests/unit/pool/test_trial.py",)
_CHILDREN = (*_UNIT, "tests/integration/test_tracking_limits.py")

MUTANTS = (
    # --- calls beside each other --------------------------------------------------------------
    Mutant(
        "a call returns before what another one took is acknowledged",
        "Tracking.persist",
        "                if found is not None:\n"
        "                    way, pages = found\n"
        "                    way.send(pages, self._floor, self._last(pages), relaxed=relaxed)\n"
        "                    return\n",
        "                own = set_for(self._region)\n"
        "                if found is not None:\n"
        "                    own.move_from(found[1])\n"
        "            if found is not None:\n"
        "                found[0].send(own, self._floor, self._size, relaxed=relaxed)\n"
        "                return\n",
        _BOTH,
    ),
    Mutant(
        "two calls take out each other's pages",
        "Tracking.persist",
        "            with self._alone():\n",
        "            with threading.Lock():\n",
        _BOTH,
    ),
    Mutant(
        "a call takes out the pages of a narrow one",
        "Tracking.persist_changed",
        "            with self._alone():\n",
        "            with threading.Lock():\n",
        _BOTH,
    ),
    Mutant(
        "with nothing changed nobody asks how the copies are",
        "Watched.send",
        '            self._reach.call("confirm")\n',
        "            pass\n",
        _BOTH,
    ),
    # --- when a page is pending ---------------------------------------------------------------
    Mutant(
        "a call that fails forgets its pages",
        "Watched.send",
        '            self._reach.call("persist_many", ranges, relaxed=relaxed)\n'
        "            pages.clear()\n",
        "            pages.clear()\n"
        '            self._reach.call("persist_many", ranges, relaxed=relaxed)\n',
        _UNIT,
    ),
    Mutant(
        "a call that fails forgets its copied pages",
        "Digested._send_window",
        '        self._reach.call("persist_lent", ranges, lender, whole)\n'
        "        self._digests.confirm(pages, low, length)\n"
        "        pages.discard(low, length)\n",
        "        lender.copy()\n"
        "        self._digests.confirm(pages, low, length)\n"
        "        pages.discard(low, length)\n"
        '        self._reach.call("persist_lent", ranges, lender, whole)\n',
        _UNIT,
    ),
    Mutant(
        "a failure in one window is forgotten with the next ones",
        "Digested.send",
        "                lost = lost or error\n",
        "                pass\n",
        _BOTH,
    ),
    Mutant(
        "stores are looked for after the send instead of before",
        "Watched.send",
        "            pages.clear()\n",
        "            self._written.take(pages, begin, end - begin)\n            pages.clear()\n",
        _BOTH,
    ),
    Mutant(
        "a page that was sent in part is pending no longer",
        "Watched.send_part",
        "            pages.discard(offset, length)\n",
        "            pages.clear()\n",
        _BOTH,
    ),
    Mutant(
        "a page that differs and was sent in part is pending no longer",
        "Digested.send_part",
        "        found = parts_of(pages, ranges)\n",
        "        found = parts_of(pages, ranges)\n"
        "        self._digests.lend(\n"
        "            pages, 0, self._region.size, bytearray(self._region.size)\n"
        "        ).copy()\n"
        "        self._digests.confirm(pages, 0, self._region.size)\n"
        "        pages.clear()\n",
        _BOTH,
    ),
    Mutant(
        "what was noted is forgotten",
        "Tracking._found",
        "        self._noted.move_to(fresh)\n",
        "",
        _CHILDREN,
    ),
    Mutant(
        "nothing is noted",
        "Tracking.touched",
        "            self._noted.note_all(ranges)\n",
        "            pass\n",
        _CHILDREN,
    ),
    # --- the kernel, and after it -------------------------------------------------------------
    Mutant(
        "the kernel is still believed after a fork",
        "Tracking._has_forked",
        "return forks() != self._forks",
        "return False",
        _CHILDREN,
    ),
    # --- digests ------------------------------------------------------------------------------
    Mutant(
        "what a call sends by name leaves the digests as they are",
        "Digested.look",
        "        pages.move_from(self._sent)\n",
        "",
        _BOTH,
    ),
    Mutant(
        "what a replica is sent when it joins leaves the digests as they are",
        "Digested.look",
        "        if joins != self._joins:\n",
        "        if False:\n",
        _BOTH,
    ),
    Mutant(
        "nobody hears of a replica that joins",
        "Copies.attach",
        "                self.joins += 1\n",
        "",
        ("tests/integration/test_tracking_rules.py",),
    ),
    Mutant(
        "a new set of copies does not mark what it sends",
        "Copies._make",
        "            core.mark_sent(self._sent)\n",
        "            pass\n",
        ("tests/integration/test_tracking_rules.py",),
    ),
    Mutant(
        "what does not differ is not flushed here",
        "Digested.send",
        "        whole = begin, end - begin\n",
        "        whole = begin, 0\n",
        _UNIT,
    ),
    Mutant(
        "what does not differ of a range is not flushed here",
        "Digested.send_part",
        "self._region.persist(low, high - low)",
        "pass",
        _UNIT,
    ),
    # --- what is told about this machine ------------------------------------------------------
    Mutant(
        "it is not told why the kernel does not find changes",
        "tried",
        "            reasons.append(str(error))\n",
        "            pass\n",
        _TRIAL,
    ),
    Mutant(
        "a way that does not work is told",
        "tried",
        'return "off", reasons',
        'return "digest", reasons',
        _TRIAL,
    ),
    Mutant(
        "a trial of the kernel tries nothing",
        "_try_kernel",
        "        try_kernel(memory)\n",
        "        pass\n",
        (
            *_TRIAL,
            "tests/integration/test_cli.py::test_check_says_why_the_kernel_does_not_find_them",
        ),
    ),
)
