"""What an acknowledgement is worth, for every step, fabric and medium: no more than is known."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import pytest

from rpmem.pool.pool import Pool
from rpmem.session.replica import LEVELS, Replica

STEPS = ("send-after-write", "read-after-write", "commit", "flush")
PROVIDERS = ("tcp", "sockets", "verbs", "ofi-verbs")
MEDIA = ("pmem", "page", "volatile", "unknown", "", "PMEM", "something-new")


def expected(step, provider, medium):
    if medium not in ("pmem", "page", "volatile"):
        return "unknown"
    if medium == "volatile":
        return "visible"
    if step == "read-after-write" and provider in ("tcp", "sockets"):
        # No device whose writes a read could push out: the data are in the target's caches.
        return "visible"
    return "persistent"


@pytest.mark.parametrize(
    ("step", "provider", "medium"), list(itertools.product(STEPS, PROVIDERS, MEDIA))
)
def test_of_a_replica(step, provider, medium):
    replica = Replica.__new__(Replica)
    replica.step, replica.provider, replica.medium = step, provider, medium
    assert replica.level == expected(step, provider, medium)
    assert replica.level in LEVELS


@pytest.mark.parametrize("levels", list(itertools.product(LEVELS, repeat=2)))
def test_of_a_pool_is_that_of_its_weakest_replica(levels):
    weakest = next(level for level in ("unknown", "visible", "persistent") if level in levels)
    pool = SimpleNamespace(replicas=[SimpleNamespace(level=level) for level in levels])
    assert Pool.level.fget(pool) == weakest
