"""Every claim of durability, and a daemon that breaks it: the honest one passes, this one fails.

The claim of ``send-after-write`` is tested where SIGKILL is a power cut: on the shadow medium only
what the daemon flushed is left. The claims of ``commit`` and ``read-after-write`` cannot be: there
the flush is the provider's, by cache-line instructions on the target's mapping, which no medium
made of files can see, and no daemon of ours can be told to leave out. Tested of them is what a
killed process shows: that acknowledged bytes had arrived in the target's memory, which a file
keeps. Their negative control is a writer that takes a posted write for an acknowledged one.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time

import pytest

from rpmem.errors import DeadlineExceeded, ReplicaLost
from tests.support import faulty_rpmemd
from tests.support.fabrics import needs_libfabric
from tests.support.lowtier import WordBuffer, await_failure, replicated
from tests.support.media import image_of, wait_unlocked
from tests.support.processes import stop
from tests.support.workload import Journal, Ledger, Loss, Program, Run

THREADS = 2
WORDS = 8192
HANGS = 60.0
#: Kills that an honest daemon has to survive, and that a broken one gets to be found out.
HONEST, BROKEN = 3, 10

STRICT = ["persist", "many", "strided", "flush", "deep"]
RELAXED = ["relaxed", "relaxed-many", "relaxed-flush"]

#: How the daemon is started, for the steps that need more than the shadow medium.
PMEM = f"env PMEM_IS_PMEM_FORCE=1 {sys.executable} -P -m tests.support.faulty_rpmemd"
APM = f"{sys.executable} -P -m tests.support.faulty_rpmemd --persist-apm"

ONE_SIDED = pytest.mark.parametrize(
    ("step", "command"),
    [
        pytest.param("commit", PMEM, id="commit", marks=needs_libfabric),
        pytest.param("read-after-write", APM, id="read-after-write", marks=needs_libfabric),
    ],
)


def kill_once(directory, seed, command, kinds, *, step="auto", largest=8192):
    """Kill a target at a random moment; return the ledger and what was on its medium."""
    moment = random.Random(seed)
    buffer = WordBuffer(THREADS, WORDS)
    journal = Journal(directory / "journal")
    journal.clear()
    base = {name: words.copy() for name, words in buffer.arrays(buffer.memory).items()}

    def programs():
        own = [{name: WORDS} for name in base]
        return [Program(seed, thread, own[thread], kinds, largest) for thread in range(THREADS)]

    pool_set = directory / f"{seed}.set"
    with replicated(buffer.memory, directory, pool_set.name, command=command, step=step) as replica:
        assert step in ("auto", replica.step)
        buffer.replica = replica
        run = Run(buffer, buffer.views(), programs(), journal)
        run.start()
        enough = moment.randint(THREADS, 30)
        deadline = time.monotonic() + HANGS
        while journal.total(THREADS) < enough and time.monotonic() < deadline:
            time.sleep(0.0002)
        os.kill(replica.peer.pid, signal.SIGKILL)
        run.join(HANGS)
        wait_unlocked(pool_set)
        found = buffer.arrays(image_of(pool_set))
    return Ledger(base, programs, journal), found


def losses(directory, command, kinds, kills, **options):
    """Kill until acknowledged words are missing, or `kills` times; return what was missing."""
    for seed in range(kills):
        ledger, found = kill_once(directory, seed, command, kinds, **options)
        try:
            assert ledger.check(found) == THREADS * WORDS
        except Loss as loss:
            return loss
    return None


@pytest.mark.parametrize("kind", STRICT + RELAXED)
def test_send_after_write(tmp_path, kind):
    honest = faulty_rpmemd.command()
    assert losses(tmp_path, honest, [kind], HONEST) is None


@pytest.mark.parametrize("kind", STRICT + RELAXED)
@pytest.mark.parametrize(
    "breakage",
    [
        pytest.param(faulty_rpmemd.SKIP_FLUSH, id="skips-its-flush"),
        pytest.param(faulty_rpmemd.ANSWER_EARLY, id="answers-early"),
    ],
)
def test_send_after_write_broken_is_found_out(tmp_path, kind, breakage):
    broken = faulty_rpmemd.command(breakage=breakage)
    loss = losses(tmp_path, broken, [kind], BROKEN)
    assert isinstance(loss, Loss)
    assert "words are wrong" in str(loss)


@ONE_SIDED
@pytest.mark.parametrize("kinds", [STRICT, RELAXED], ids=["strict", "relaxed"])
def test_one_sided_steps_arrive(tmp_path, tmpfs, step, command, kinds):
    directory = tmpfs if step == "read-after-write" else tmp_path
    assert losses(directory, command, kinds, HONEST, step=step) is None


@ONE_SIDED
def test_strict_data_of_one_sided_steps_answered_early_is_found_out(tmp_path, tmpfs, step, command):
    directory = tmpfs if step == "read-after-write" else tmp_path
    broken = f"{command} --breakage {faulty_rpmemd.ANSWER_EARLY}"
    assert isinstance(losses(directory, broken, STRICT, BROKEN, step=step), Loss)


@ONE_SIDED
def test_a_posted_write_is_no_acknowledged_one(tmp_path, tmpfs, step, command):
    """The checker sees it when the completion is not waited for."""
    directory = tmpfs if step == "read-after-write" else tmp_path
    buffer = WordBuffer(1, WORDS)
    with replicated(buffer.memory, directory, command=command, step=step, timeout=2.0) as replica:
        assert replica.step == step
        buffer.replica = replica
        (views,) = buffer.views()
        (words,) = views.values()
        words[:100] = 1
        buffer.persist(words[:100], relaxed=True)
        stop(replica.peer.pid)
        words[100:200] = 2
        buffer.flush(words[100:200], relaxed=True)
        os.kill(replica.peer.pid, signal.SIGKILL)
        wait_unlocked(directory / "a.set")
        await_failure(replica)
        (found,) = buffer.arrays(image_of(directory / "a.set")).values()
    assert (found[:100] == 1).all()
    assert not (found[100:200] == 2).any()


@ONE_SIDED
@pytest.mark.parametrize("ranges", [1, 40])
def test_a_stopped_target_acknowledges_nothing(tmp_path, tmpfs, step, command, ranges):
    directory = tmpfs if step == "read-after-write" else tmp_path
    buffer = WordBuffer(1, WORDS)
    some = [(4096 + number * 512, 64) for number in range(ranges)]
    with replicated(buffer.memory, directory, command=command, step=step, timeout=2.0) as replica:
        replica.persist_many(some, relaxed=True)
        stop(replica.peer.pid)
        # The posts themselves go through, so it is the answer that is waited for.
        replica.flush(*some[0], relaxed=True)
        with pytest.raises((DeadlineExceeded, ReplicaLost)):
            replica.persist_many(some, relaxed=True)
        os.kill(replica.peer.pid, signal.SIGKILL)
