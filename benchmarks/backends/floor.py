"""The floor of a lane: the same bytes over the same kind of socket, in C, in one of many ways."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.backends import Opened
from benchmarks.driver import Driver
from benchmarks.room import Absent, Room, Setting, compiled


@dataclass(frozen=True)
class Floor:
    """``raw/floor.c``; its ops are ``send`` and ``pipeline``.

    Attributes
    ----------
    over : {"tcp", "pair"}
        The sockets.
    tls : {"", "socket", "memory"}
        In plain text, or encrypted by records that OpenSSL reads from the socket or from memory.
    sender, receiver : str
        How both sides wait.
    """

    over: str
    tls: str = ""
    sender: str = "pause"
    receiver: str = "pause"

    @property
    def name(self) -> str:
        """Its words, as the program takes them."""
        how = self.sender if self.sender == self.receiver else f"{self.sender}/{self.receiver}"
        return " ".join(filter(None, ["C", self.over, self.tls and f"TLS {self.tls}", how]))

    @property
    def label(self) -> str:
        """The same."""
        return self.name

    def absent(self, room: Room) -> str | None:
        """Say whether it compiles."""
        self._program()
        return None

    def open(self, room: Room, setting: Setting) -> Opened:
        """Start it; it starts its receivers."""
        if setting.lanes != 1:
            raise Absent("one connection to each receiver")
        words: list[object] = [self._program(), "--over", self.over, "--sender", self.sender]
        words += ["--receiver", self.receiver, "--receivers", setting.replicas]
        if self.tls:
            words += ["--tls", self.tls]
        cores = [room.pin(setting, side)[2:] for side in ("initiator", "target")]
        if all(cores):
            words += ["--pin", ",".join(core for (core,) in cores)]
        return Opened(Driver(list(map(str, words)), room.place("floor") / "log"))

    def _program(self):
        return compiled(
            "raw_floor", ("floor.c", "floor_link.c"), ("libssl", "libcrypto"), ("-D_GNU_SOURCE",)
        )
