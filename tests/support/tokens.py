"""The tokens that targets grant to sessions of this process, and where secrets are found again."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from rpmem.session import lanes
from rpmem.session.lanes import Lanes


@contextmanager
def noted() -> Iterator[list[list[bytes]]]:
    """Give the tokens of every session that begins meanwhile, one for each of its lanes."""
    sessions: list[list[bytes]] = []
    connect = Lanes._connect

    def note(self: Lanes, *arguments: Any) -> None:
        sessions.append([grant.token for grant in self._ready.lanes])
        connect(self, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Lanes, "_connect", note)
        yield sessions


@contextmanager
def spoilt() -> Iterator[None]:
    """Let lanes prove themselves with their tokens read backwards, which no target takes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lanes, "pack_proof", lambda number, token: b"RPML" + bytes(4) + token[::-1])
        yield


def _spellings(secret: bytes) -> set[bytes]:
    """Return what a secret looks like when somebody prints it."""
    escaped = repr(secret)[2:-1].encode()
    return {
        secret,
        secret.hex().encode(),
        secret.hex().upper().encode(),
        base64.b64encode(secret).rstrip(b"="),
        base64.urlsafe_b64encode(secret).rstrip(b"="),
        escaped,
        escaped.replace(b"\\", b"\\\\"),
    }


def finds(secrets: Iterable[bytes], places: Mapping[str, bytes]) -> list[str]:
    """Return the places in which one of the secrets stands."""
    wanted: set[bytes] = set().union(*map(_spellings, secrets))
    return [place for place, content in places.items() if any(each in content for each in wanted)]
