"""Both ends of a replica's lanes in one process, without a control session."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from rpmem._core import Replicator
from rpmem.control.messages import LaneGrant, Ready
from rpmem.control.proof import new_token
from rpmem.errors import ProviderUnavailable, ReplicaLost, RpmemError
from rpmem.memory.region import Region
from rpmem.session.lanes import Lanes
from rpmemd.admission import TokenAdmission
from rpmemd.lane_server import Dialect, LaneServer
from rpmemd.log import Log
from tests.support import fabrics

SIZE = 1 << 20
LISTENING = "127.0.0.1"


class Owner:
    """What a replica is to its lanes."""

    target = "a target"

    def explain(self, fault: int, refusal: int, detail: int) -> RpmemError:
        """Return an error that shows what ended a lane."""
        return ReplicaLost(f"fault {fault}, refusal {refusal}, detail {detail}")


class Pair:
    """A served region and what connects to it.

    Attributes
    ----------
    here, there : Region
        The initiator's memory and the target's.
    reports : list
        What the server reported.
    ready : Ready
        What a target would answer.
    """

    def __init__(
        self,
        *,
        lanes: int = 1,
        message_size: int = 1 << 16,
        window: int = 4,
        size: int = SIZE,
        provider: str = "",
        address: str = LISTENING,
    ) -> None:
        provider = provider or fabrics.default
        self.address = address
        self.here, self.there = Region.anonymous(size), Region.anonymous(size)
        self.reports: list[RpmemError | None] = []
        self.server = LaneServer(
            self.there,
            size=size,
            floor=0,
            providers=(provider,),
            address=address,
            lanes=lanes,
            message_size=message_size,
            dialect=Dialect("native", window, one_key=False),
            threads=0,
            spin_s=None,
            report=self.reports.append,
        )
        self.tokens = tuple(new_token() for _ in range(self.server.granted))
        self.ready = Ready(
            provider=provider,
            address=address,
            port=self.server.port,
            lanes=tuple(
                LaneGrant(token=token, key=key, address=address)
                for token, (key, address) in zip(
                    self.tokens, map(self.server.reach, range(self.server.granted)), strict=True
                )
            ),
            pool_size=size,
            medium="volatile",
            steps=("send-after-write",),
            message_size=message_size,
            window=window,
        )
        self.lanes: Lanes | None = None
        self.core: Replicator | None = None

    def serve(self) -> None:
        """Begin to admit lanes."""
        self.server.start(TokenAdmission(self.tokens, Log(file=open(os.devnull, "w"))))  # noqa: SIM115

    def connect(
        self, *, timeout: float = 20.0, spin: float = 50e-6, patience: float = 20.0
    ) -> Replicator:
        """Connect all lanes; return what persists over them."""
        self.lanes = Lanes(self.ready, [self.address], self.here, timeout_s=timeout)
        self.core = Replicator(
            self.here,
            [self.lanes.group("send-after-write", Owner())],
            local=False,
            floor=0,
            spin_s=spin,
            timeout_s=patience,
        )
        return self.core

    def first_report(self, patience_s: float = 20.0) -> RpmemError | None:
        """Wait for what the server reports first, which may come after its answer."""
        end = time.monotonic() + patience_s
        while not self.reports:
            assert time.monotonic() < end, "the server reported nothing"
            time.sleep(0.001)
        return self.reports[0]

    def close(self) -> None:
        """End both sides."""
        if self.core is not None:
            self.core.close("the test is over")
        self.core = None
        if self.lanes is not None:
            self.lanes.close()
        self.server.close()


@contextmanager
def pair(**options: Any) -> Iterator[Pair]:
    """Serve a pair; skip the test where the provider is not there."""
    try:
        made = Pair(**options)
    except ProviderUnavailable as absent:
        pytest.skip(str(absent))
    try:
        made.serve()
        yield made
    finally:
        made.close()
