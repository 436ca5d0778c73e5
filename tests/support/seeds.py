"""Where tests that draw at random begin: at a number of their own, or where the nightly run is."""

from __future__ import annotations

import os


def first(own: int) -> int:
    """Return the seed of a test: RPMEM_TEST_SEED, which a nightly part counts up, or its own."""
    return int(os.environ.get("RPMEM_TEST_SEED", own))
