"""The first seed of randomized tests: fixed for each test, or given by the nightly run."""

from __future__ import annotations

import os


def first(own: int) -> int:
    """Return the seed of a test: RPMEM_TEST_SEED, which a nightly part counts up, or its own."""
    return int(os.environ.get("RPMEM_TEST_SEED", own))
