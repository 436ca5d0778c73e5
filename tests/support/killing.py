"""What harnesses share that kill a process in the middle of what it does to a pool."""

from __future__ import annotations

import mmap
import os
import random
import struct
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import rpmem
from rpmem.errors import RpmemError

#: Seconds after which a process that does nothing counts as hung.
HANGS_S = 90.0


class Journal:
    """Numbers that a process leaves, in memory that outlives it; each field begins with 0."""

    #: How far it is, how much it has done, and the process numbers of the two targets.
    READY, ACTS, ONE, TWO = range(4)
    #: The first number of further fields.
    MORE = 4

    def __init__(self, fields: int = 16) -> None:
        self._memory = mmap.mmap(-1, 8 * fields)

    def __getitem__(self, field: int) -> int:
        return int(struct.unpack_from("<q", self._memory, 8 * field)[0])

    def __setitem__(self, field: int, value: int) -> None:
        struct.pack_into("<q", self._memory, 8 * field, value)

    def tell(self, pool: rpmem.Pool) -> None:
        """Note the targets of the replicas ``one.set`` and ``two.set``, or in such folders."""
        for field, each in ((self.ONE, "one"), (self.TWO, "two")):
            pids = [
                replica.peer.pid
                for replica in pool.replicas
                if each in (replica.pool_set.partition(".")[0], Path(str(replica.target)).name)
                and replica.peer is not None
            ]
            self[field] = pids[0] if pids else 0

    def wait(self, met: Callable[[], bool], user: int) -> None:
        """Wait until something is so, or until the process has ended."""
        deadline = time.monotonic() + HANGS_S
        while not met():
            if os.waitid(os.P_PID, user, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                return
            if time.monotonic() > deadline:
                raise TimeoutError("an initiator hangs")
            time.sleep(0.0005)

    def go_on(self, dice: random.Random, user: int, most: int) -> None:
        """Wait for fewer acts than so many, and then for a moment."""
        goal = self[self.ACTS] + dice.randrange(most)
        self.wait(lambda: self[self.ACTS] >= goal, user)
        end = time.perf_counter() + dice.choice((0.0, 1e-4, 1e-3, 1e-2, 0.1)) * dice.random()
        while time.perf_counter() < end:
            pass


def forked(work: Callable[[], None]) -> int:
    """Do something in a child; return its number."""
    pid = os.fork()
    if pid:
        return pid
    try:
        work()
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    os._exit(1)


def is_rpmemd(pid: int) -> bool:
    """Whether a process is a target."""
    try:
        return b"rpmemd" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def give_up(pool: rpmem.Pool) -> None:
    """Go on without the replicas that are lost."""
    while lost := [each for each in pool.replicas if each.failure is not None]:
        try:
            pool.detach(lost[0])
        except RpmemError:
            # Another one is lost, too, and has to go before an epoch can begin.
            if lost[0] in pool.replicas:
                raise
