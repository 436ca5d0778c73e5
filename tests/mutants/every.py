"""All mutants there are."""

from __future__ import annotations

from tests.mutants import core, daemon, files, links, pool

ALL = (*core.MUTANTS, *daemon.MUTANTS, *files.MUTANTS, *links.MUTANTS, *pool.MUTANTS)
