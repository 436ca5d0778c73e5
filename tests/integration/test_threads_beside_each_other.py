"""Threads that persist the same or neighbouring bytes: at a replica none undoes another's."""

from __future__ import annotations

import os
import threading
import time

import numpy as np
import pytest

import rpmem

SECONDS = 0.5
LENGTHS = (8, 200, 20_000)


def persist_own(pool, view, mine, _):
    pool.persist(mine)


def persist_whole_array(pool, view, mine, _):
    pool.persist(view)


def persist_whole_pool(pool, view, mine, number):
    pool.persist(None if number else mine)


def persist_many(pool, view, mine, _):
    pool.persist_many([mine[:2], mine[2:]])


def persist_relaxed(pool, view, mine, number):
    pool.persist(mine, relaxed=bool(number))


def flush_and_drain(pool, view, mine, number):
    if number:
        pool.flush(mine)
        pool.drain()
    else:
        pool.persist(mine)


CALLS = (
    persist_own,
    persist_whole_array,
    persist_whole_pool,
    persist_many,
    persist_relaxed,
    flush_and_drain,
)


def first_loss(pool, view, call, seconds=SECONDS, threads=2):
    """Let each thread store into elements of its own; return what one no longer found there."""
    losses = []
    rounds = [0] * threads
    end = time.monotonic() + seconds

    def work(number):
        mine = view[number::threads]
        while time.monotonic() < end and not losses:
            rounds[number] += 1
            mine[:] = rounds[number]
            call(pool, view, mine, number)
            found = pool.read(view)[number::threads]
            if (found != rounds[number]).any():
                losses.append((number, rounds[number], np.unique(found).tolist()))

    running = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for each in running:
        each.start()
    for each in running:
        each.join()
    assert all(rounds)
    return losses


@pytest.mark.parametrize("call", CALLS)
def test_what_a_thread_persisted_stays_at_the_replica(tmpfs, call):
    """Elements of two threads side by side travel in ranges that overlap, on two lanes."""
    os.mkdir(tmpfs / "there")
    target = f"local:{tmpfs / 'there'} r.set"
    with rpmem.Pool.create(tmpfs / "a.pool", "2MiB", target, parts=1, nlanes=4) as pool:
        for length in LENGTHS:
            view = pool.array(f"a{length}", length, "u8")
            assert first_loss(pool, view, call, SECONDS / len(LENGTHS)) == []
