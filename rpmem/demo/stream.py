"""A stream of persists with a model of the acknowledged data, and the killing of its target."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from rpmem.base import environment
from rpmem.errors import RpmemError
from rpmem.launch import launch
from rpmem.pool.pool import Pool
from rpmem.session.replica import Replica

if TYPE_CHECKING:
    from numpy.typing import NDArray

RECORD = np.dtype([("number", "<u8"), ("amount", "<f8"), ("text", "S48")])
RECORDS = 4096

_GIVE_UP = 60.0


@dataclass
class Stream:
    """Records written one after another, each durable before the next.

    Attributes
    ----------
    model : ndarray
        The expected content of the ledger: changed only after an acknowledgement.
    acknowledged : int
        How many persists returned.
    in_flight : int or None
        The record whose persist did not return.
    attempted : ndarray
        The new content of that record.
    error : RpmemError or None
        The error from that persist.
    silence : float
        Seconds from the last acknowledgement, or from the kill if later, to the error.
    """

    model: NDArray[Any] = field(default_factory=lambda: np.zeros(RECORDS, RECORD))
    acknowledged: int = 0
    in_flight: int | None = None
    attempted: NDArray[Any] = field(default_factory=lambda: np.zeros((), RECORD))
    error: RpmemError | None = None
    silence: float = 0.0

    def run(self, pool: Pool, killer: Killer) -> None:
        """Write records until persist raises, while `killer` kills the target."""
        ledger = pool.array("ledger", RECORDS, RECORD)
        dice = random.Random(1)
        killer.start()
        started = last = time.monotonic()
        while last - started < _GIVE_UP:
            place = dice.randrange(RECORDS)
            record = np.array(
                (self.acknowledged + 1, dice.random(), dice.randbytes(24).hex()), RECORD
            )
            ledger[place] = record
            try:
                pool.persist(ledger[place : place + 1])
            except RpmemError as error:
                self.in_flight, self.attempted, self.error = place, record, error
                self.silence = time.monotonic() - max(last, killer.done_at or last)
                break
            last = time.monotonic()
            self.model[place] = record
            self.acknowledged += 1
        killer.join()

    def check(self, ledger: NDArray[Any]) -> int:
        """Compare the restored ledger with the model; return how many bytes are wrong.

        Each 8-byte word of the record in flight may be old or new, as `persist` promises.
        """
        found, model = _words(ledger), _words(self.model)
        wrong = found != model
        if self.in_flight is not None:
            wrong[self.in_flight] &= found[self.in_flight] != _words(self.attempted)[0]
        return int(wrong.sum()) * found.itemsize


def _words(records: NDArray[Any]) -> NDArray[np.uint64]:
    raw = np.atleast_1d(records).view(np.uint64)
    return raw.reshape(-1, RECORD.itemsize // raw.itemsize)


class Killer(threading.Thread):
    """Kills the rpmemd of a replica with SIGKILL after a delay.

    Parameters
    ----------
    replica : Replica
        The replica whose rpmemd to kill.
    delay : float
        Seconds.

    Attributes
    ----------
    done_at : float or None
        When the signal had been sent (``time.monotonic``); None if that is not known.
    failure : Exception or None
        Why it could not be sent.
    """

    def __init__(self, replica: Replica, delay: float) -> None:
        super().__init__(name="killer", daemon=True)
        self._replica = replica
        self._delay = delay
        self.done_at: float | None = None
        self.failure: Exception | None = None

    def run(self) -> None:
        """Wait, then kill: a child process directly, any other through its target's shell."""
        time.sleep(self._delay)
        peer = self._replica.peer
        try:
            if peer is None:
                raise RpmemError("the target did not report its process id")
            if self._replica.target.is_local:
                os.kill(peer.pid, signal.SIGKILL)
                self.done_at = time.monotonic()
                return
            seconds = environment.current().timeout_s
            with launch(self._replica.target, [str(peer.pid)], command="kill -KILL") as shell:
                shell.exit_status(seconds)
        except (RpmemError, OSError) as error:
            self.failure = error
