"""How an encrypted lane over TCP comes about: in the handshake, both sides prove to have the key.

Nothing of the proof travels. The token that is the key is spent when the other side's Finished has
been verified, so whoever only repeats what he has seen spends nothing, and may do so beside others.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Sequence

from rpmem.fabric.stream.call import PROOF_SIZE, Call, Caller
from rpmem.fabric.stream.handshake import Handshake
from rpmem.fabric.stream.keyring import Keyring

__all__ = ["SecretCall", "SecretCaller"]


class SecretCaller(Caller):
    """A connection that wants to become an encrypted lane; `data` is the proof whose token it has.

    Parameters
    ----------
    connection, peer
        As for `Visitor`.
    ring : Keyring
        The tokens that have not been spent.
    proofs : sequence of bytes
        By the number of the lane.
    """

    largest = PROOF_SIZE

    def __init__(
        self,
        connection: socket.socket,
        peer: tuple[str, int],
        ring: Keyring,
        proofs: Sequence[bytes],
    ) -> None:
        super().__init__(connection, peer)
        self._ring = ring
        self._proofs = proofs

    def read(self) -> bool | None:
        """Go on with the handshake; True: it is done, False: it failed, None: wait."""
        try:
            if self.secret is None:
                # Who says nothing costs nothing.
                if not self.connection.recv(1, socket.MSG_PEEK):
                    return False
                self.secret = Handshake(self.connection.fileno(), self._ring)
            if not self.secret.proceed():
                return None
        except BlockingIOError:
            return None
        except OSError:
            return False
        lane = self.secret.lane
        if self._ring.spend(lane) is None:
            return False  # another connection with the same key was faster
        self.data = self._proofs[lane]
        return True


class SecretCall(Call):
    """A connection of the initiator's side, until the target has the key and has answered.

    Parameters
    ----------
    addresses : sequence of tuple
        As for `Call`.
    ring : Keyring
    lane : int
        The number of the lane.
    """

    def __init__(
        self, addresses: Sequence[tuple[int, tuple[str, int]]], ring: Keyring, lane: int
    ) -> None:
        self._ring = ring
        self._lane = lane
        super().__init__(addresses, b"")

    def answered(self) -> int:
        """Return the descriptor of the socket, which belongs to the caller now."""
        self._ring.spend(self._lane)
        return super().answered()

    def _has_proved(self) -> bool:
        if self.secret is None:
            self.secret = Handshake(self.fileno, self._ring, self._lane)
            self.events = select.POLLIN
        return self.secret.proceed()

    def _receive(self, most: int) -> bytes:
        assert self.secret is not None
        found = self.secret.receive(most)
        if not found:
            raise BlockingIOError
        return found
