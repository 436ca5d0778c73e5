"""Coverage-guided inputs for both sides of a stream lane, before and after its handshake.

libFuzzer makes them; the compiled parts, built in a copy of the tree by clang, are instrumented
and watched by AddressSanitizer and UndefinedBehaviorSanitizer. What an input is, and what is wrong,
says `tests/support/_fuzzed_stream.pyx`. ``corpus`` has inputs that between them reach what is known
to be reachable; `tests/faults/test_fuzzed_stream.py` runs them, and damaged ones, without clang as
well.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

CORPUS = Path(__file__).with_name("corpus")
#: Of a hundred inputs, how many each kind gets: a handshake takes far longer than a frame.
SHARES = {
    "target": 32,
    "initiator": 32,
    "hello": 14,
    "answer": 12,
    "secret-target": 5,
    "secret-initiator": 5,
}


def corpus(kind: str) -> Sequence[bytes]:
    """Return the inputs of a kind that are kept."""
    return [path.read_bytes() for path in sorted((CORPUS / kind).iterdir())]
