"""A hundred sessions at once, each with a target of its own, and what is left of them: nothing."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from threading import Barrier

import pytest

from tests.support.media import wait_unlocked
from tests.support.over_tcp import no_ssh, node
from tests.support.processes import wait_gone

SESSIONS = 100
ROUNDS = 20
SIZE, PAGE = 2 << 20, 4096
#: What a process may have gained in the meantime: the log, the clock.
A_FEW = 4


def descriptors():
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.alone
@pytest.mark.timeout(300)
@pytest.mark.parametrize("over", ["pair", "tls"])
def test_a_hundred_sessions_at_once(tmp_path, set_variable, over):
    set_variable("RPMEM_SSH", str(no_ssh(tmp_path)))
    target = node(tmp_path / "node", over)
    target.create(bytearray(SIZE), "first.set").close()
    before = descriptors()
    together = Barrier(SESSIONS)
    memories = [bytearray(SIZE) for _ in range(SESSIONS)]

    def use(number, replica):
        """All at once, each its own bytes, which the target gives back."""
        together.wait(60.0)
        for turn in range(ROUNDS):
            memories[number][PAGE : PAGE + 64] = bytes([number, turn]) * 32
            replica.persist(PAGE, 64)
        back = bytearray(64)
        replica.read(back, PAGE)
        return bytes(back)

    with ExitStack() as all_of_them, ThreadPoolExecutor(SESSIONS) as threads:
        replicas = list(
            threads.map(
                lambda number: target.create(memories[number], f"{number}.set"), range(SESSIONS)
            )
        )
        for each in replicas:
            all_of_them.enter_context(each)
        assert len({each.peer.pid for each in replicas}) == SESSIONS
        encrypted = [each.encryption for each in replicas]
        assert all((said == "TLS 1.3") == (over == "tls") for said in encrypted)
        found = list(threads.map(use, range(SESSIONS), replicas))
        assert found == [bytes([number, ROUNDS - 1]) * 32 for number in range(SESSIONS)]
        pids = [each.peer.pid for each in replicas]
    for number, pid in enumerate(pids):
        wait_gone(pid)
        wait_unlocked(target.directory / f"{number}.set")
        assert target.image(f"{number}.set")[PAGE : PAGE + 64] == found[number]
    assert descriptors() <= before + A_FEW
