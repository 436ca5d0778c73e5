"""Looking at what a target has without opening it: one pool, or which pool sets there are.

No lane is connected and nothing is locked or changed there. Everything travels over the control
session, so it needs no fabric on either side.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TypedDict, Unpack

from rpmem._version import __version__
from rpmem.base import environment as _environment
from rpmem.base import interrupts
from rpmem.base import logs as _logs
from rpmem.base.handles import Closing
from rpmem.base.target import Target, require_name
from rpmem.control.initiator import InitiatorSession
from rpmem.control.messages import (
    FEATURES,
    MAX_PEEK,
    Content,
    Hello,
    List,
    Listed,
    Look,
    Peek,
    PoolSetRow,
    Seen,
)
from rpmem.errors import RangeError, RpmemError, UsageError, VersionMismatch
from rpmem.launch import launch
from rpmem.session.channel import Channel, LegacySpoken

#: Pool sets of one target that are taken note of.
MOST_SETS = 100_000


class LookKeywords(TypedDict, total=False):
    """The keyword arguments that say how a target is reached."""

    launcher: str | None
    command: str | None
    timeout: float | None
    protocol: str | None


class Looking(Closing):
    """A session that only looks.

    Parameters
    ----------
    target : Target
    launcher, command, timeout, protocol : optional
        As for `rpmem.session.options.SessionOptions`.

    Attributes
    ----------
    target : Target
    in_use : bool
        Whether the pool that is looked at had a writer when it was last read.

    Raises
    ------
    VersionMismatch
        The target runs PMDK's rpmemd, or an older one.
    LaunchError
        rpmemd could not be started.
    """

    def __init__(
        self,
        target: Target,
        *,
        launcher: str | None = None,
        command: str | None = None,
        timeout: float | None = None,
        protocol: str | None = None,
    ) -> None:
        environment = _environment.current()
        _logs.set_up(environment)
        self.target = target
        self.in_use = False
        self._size = 0
        if _environment.protocol_of(protocol, environment) == "pmdk":
            raise UsageError(
                "PMDK's protocol, which was asked for, has no way to look at a pool",
                where=str(target),
                hint="protocol='auto', or RPMEM_PROTOCOL=auto",
            )
        timeout_s = _environment.timeout_of(timeout)
        if command is None and not target.is_local:
            command = environment.next_command()
        transport = launch(
            target,
            [],
            environment=environment,
            launcher=_environment.check_text("launcher", launcher) or environment.launcher,
            command=_environment.check_text("command", command),
            timeout_s=timeout_s,
        )
        hello = Hello.of_this_process(f"rpmem {__version__}", FEATURES)
        machine = InitiatorSession(hello, where=str(target))
        self._channel = Channel(
            transport, machine, where=str(target), timeout_s=timeout_s, on_failure=_nobody
        )
        try:
            self._greet()
        except BaseException:
            with interrupts.undoing():
                transport.kill()
                self._channel.abandon()
            raise

    def _greet(self) -> None:
        try:
            self._channel.greet()
        except LegacySpoken as error:
            raise VersionMismatch(
                "the target runs PMDK's rpmemd, which shows nothing without opening it",
                where=error.where,
                hint="Install rpmem on the target",
            ) from None

    def look(self, pool_set: str) -> Seen:
        """Choose the pool to look at; once per session.

        Raises
        ------
        PoolSetError, HeaderError
            There is no such pool, or it cannot be looked at.
        """
        answer = self._channel.look(Look(pool_set=require_name(pool_set)))
        assert isinstance(answer, Seen)
        self._size = answer.pool_size
        self.in_use = answer.writer
        return answer

    def load(self, offset: int, length: int) -> bytes:
        """Return bytes of the pool; implements `rpmem.pool.catalogue.medium.Source`."""
        if offset + length > self._size:
            raise RangeError(f"there are no {length} bytes at {offset}", where=str(self.target))
        content = bytearray()
        for begin in range(offset, offset + length, MAX_PEEK):
            interrupts.check()
            count = min(MAX_PEEK, offset + length - begin)
            answer = self._channel.look(Peek(offset=begin, length=count))
            assert isinstance(answer, Content)
            content += answer.data
            self.in_use = answer.writer
        return bytes(content)

    def sets(self) -> Iterator[PoolSetRow]:
        """Yield the pool sets that there are; at most `MOST_SETS`."""
        left = MOST_SETS
        while left > 0:
            interrupts.check()
            answer = self._channel.look(List())
            assert isinstance(answer, Listed)
            yield from answer.sets
            left -= max(len(answer.sets), 1)
            if answer.last:
                return

    def close(self) -> None:
        """End the session."""
        # Nothing depends on how it ends.
        with interrupts.undoing(), contextlib.suppress(RpmemError):
            self._channel.close()


def _nobody(error: RpmemError) -> None:
    """Do nothing: whoever waits for an answer is told."""


def list_sets(target: str | Target, **reach: Unpack[LookKeywords]) -> list[PoolSetRow]:
    """Return the pool sets in the pool set directory of a target.

    Parameters
    ----------
    target : str or Target
        As for `rpmem.open`.
    **reach
        As for `Looking`.

    Raises
    ------
    VersionMismatch, LaunchError, ReplicaLost, DeadlineExceeded
        The target does not know how to, or cannot be reached.
    """

    def work() -> list[PoolSetRow]:
        with (
            _logs.call(f"list {target}"),
            Looking(Target.of(target), **reach) as looking,
        ):
            return sorted(looking.sets(), key=lambda row: row.name)

    return interrupts.guarded(work)
