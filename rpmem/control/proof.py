"""The proof that a lane belongs to a session, sent in its connection request.

The control session hands out one token per lane; the connection request carries it once. The proof
has 40 bytes, as RDMA-CM leaves 56 for private data.
"""

from __future__ import annotations

import os
import struct
from typing import Final

from rpmem.control.messages import TOKEN_SIZE

_PROOF: Final = struct.Struct(f">4sHH{TOKEN_SIZE}s")
_MAGIC: Final = b"RPML"
_VERSION: Final = 1

PROOF_SIZE: Final = _PROOF.size


def new_token() -> bytes:
    """Return a token that cannot be guessed."""
    return os.urandom(TOKEN_SIZE)


def pack_proof(lane: int, token: bytes) -> bytes:
    """Return the private data of the connection request of lane number `lane`."""
    return _PROOF.pack(_MAGIC, _VERSION, lane, token)


class Tokens:
    """The tokens of a session that have not been used yet.

    Parameters
    ----------
    tokens : sequence of bytes
        One per lane, in the order of their numbers.
    """

    def __init__(self, tokens: tuple[bytes, ...]) -> None:
        self._left = dict(enumerate(tokens))

    def __len__(self) -> int:
        return len(self._left)

    def redeem(self, proof: bytes) -> int | None:
        """Return the number of the lane that `proof` is for, and forget its token.

        None if it is not valid: too short, of another protocol, wrong, or used before.
        """
        if len(proof) < _PROOF.size:
            return None
        lane: int
        magic, version, lane, token = _PROOF.unpack_from(proof)
        if magic != _MAGIC or version != _VERSION:
            return None
        wanted = self._left.get(lane)
        if wanted is None or not _equal(wanted, token):
            return None
        del self._left[lane]
        return lane


def _equal(one: bytes, other: bytes) -> bool:
    """Compare in a time that does not depend on where the two differ.

    Like hmac.compare_digest, whose module would load OpenSSL into every rpmemd.
    """
    difference = len(one) ^ len(other)
    for a, b in zip(one, other, strict=False):
        difference |= a ^ b
    return difference == 0
