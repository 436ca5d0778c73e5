"""The names of the providers that are rpmem's own; every other name is one of libfabric's."""

from __future__ import annotations

from typing import Final

__all__ = ["SOCKETPAIR", "STREAM", "VERBS"]

VERBS: Final = "verbs"
STREAM: Final = "stream"
#: The name on the wire for ``stream`` over pairs of sockets, which a target passes over its stdin.
SOCKETPAIR: Final = "socketpair"
