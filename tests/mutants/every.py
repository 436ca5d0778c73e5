"""All mutants there are."""

from __future__ import annotations

from tests.mutants import core, daemon, files, pool

ALL = (*core.MUTANTS, *daemon.MUTANTS, *files.MUTANTS, *pool.MUTANTS)
