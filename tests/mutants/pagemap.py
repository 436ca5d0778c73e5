"""Mistakes where the kernel is asked which pages were stored to."""

from __future__ import annotations

from tests.mutants import Mutant

_PAGEMAP = ("tests/unit/memory/test_pagemap.py",)
_SETS = ("tests/unit/memory/test_pageset.py",)

MUTANTS = (
    Mutant(
        "pages that only partly belong to the region are not sent",
        "WrittenPages.take_all",
        "        pages_add(pages, first, min(end, self.low))\n",
        "",
        _PAGEMAP,
    ),
    Mutant(
        "part of a row that one block stands for is not sent",
        "WrittenPages.take_all",
        "                    pages_add(pages, at, stop)\n",
        "                    pass\n",
        _PAGEMAP,
    ),
    Mutant(
        "of a row that one block stands for only that one is sent",
        "WrittenPages.take_group",
        "        pages_add(pages, group.first * BLOCK, group.end * BLOCK)\n",
        "",
        _PAGEMAP,
    ),
    Mutant(
        "a block that is rewritten no longer is not looked at",
        "WrittenPages.take_hot",
        "            return self.take_run(pages, first, first + BLOCK)\n",
        "            return 0\n",
        _PAGEMAP,
    ),
    Mutant(
        "of a block that is rewritten only the sample is sent",
        "WrittenPages.take_hot",
        "        pages_add(pages, first, first + BLOCK)\n",
        "",
        _PAGEMAP,
    ),
    Mutant(
        "a block that is partly looked at counts as looked at",
        "WrittenPages.is_apart",
        "at % BLOCK == 0 and at + BLOCK <= end and ",
        "at % BLOCK == 0 and ",
        _PAGEMAP,
    ),
    Mutant(
        "what a kernel did not tell is not sent",
        "WrittenPages.take",
        "            pages_add(&pages.c, first, end)\n",
        "",
        _PAGEMAP,
    ),
    Mutant(
        "the first scan counts as a rewriting",
        "WrittenPages.judge",
        "block.stored < NEARLY_ALL or not self.begun",
        "block.stored < NEARLY_ALL",
        _PAGEMAP,
    ),
    Mutant(
        "a buffer is watched whatever is mapped there",
        "check_mapping",
        "            if rpmem_is_dax(AT_FDCWD, path):\n",
        "            if False:\n",
        _PAGEMAP,
    ),
    # --- sets of pages ------------------------------------------------------------------------
    Mutant(
        "a page that is partly taken out is gone",
        "PageSet.discard",
        "page_behind(&self.c, offset)",
        "page_at(&self.c, offset)",
        _SETS,
    ),
    Mutant(
        "the page of a range's last byte is left out",
        "PageSet.add",
        "page_behind(&self.c, offset + length)",
        "page_at(&self.c, offset + length)",
        _SETS,
    ),
)
