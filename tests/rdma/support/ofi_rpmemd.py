"""rpmemd whose ``verbs`` is libfabric's: what PMDK's own daemon has under its lanes.

Run as ``python -m tests.rdma.support.ofi_rpmemd`` with rpmemd's options.
"""

from __future__ import annotations

import sys

from rpmem.base.providers import VERBS
from rpmem.fabric import providers
from rpmemd.__main__ import main

_load = providers.load


def _load_libfabric(provider: str = "") -> object:
    return _load("ofi-verbs" if provider == VERBS else provider)


if __name__ == "__main__":
    providers.load = _load_libfabric
    sys.exit(main())
