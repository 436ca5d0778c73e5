"""A target that attacks over the control session, started through ``command=``.

It follows the protocol up to the answer to create or open, and then sends what a test chooses::

    python -P -m tests.support.hostile_rpmemd '{"ready": {"port": 22}, "logs": 100000}'
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from typing import Any

from rpmem.base.providers import SOCKETPAIR
from rpmem.control.events import (
    CloseRequested,
    CreateRequested,
    DigestsRequested,
    LookRequested,
    OpenRequested,
)
from rpmem.control.framing import encode_frame
from rpmem.control.handshake import pack_status
from rpmem.control.messages import (
    FEATURES,
    Create,
    Hello,
    Kind,
    LaneGrant,
    List,
    Look,
    Open,
    Peek,
    Ready,
)
from rpmem.control.target import TargetSession
from rpmem.control.target_machine import TargetState

_LIMIT = 1 << 20


def command(**wishes: Any) -> str:
    """Return what to give as ``command=``.

    Wishes are ``ready`` (fields of the answer that are other than honest), ``raw`` (fields that
    no check of ours sees), ``error`` (an answer of that kind instead), ``logs`` (records before
    it), ``line`` (what each of them says), ``stderr`` (text, first of all), ``digests`` (all fields
    of the answer to Digest), and ``shown``: fields of the answers to Look, Peek and List, by the
    name of the request; Content is zeros otherwise.
    """
    words = [sys.executable, "-P", "-m", "tests.support.hostile_rpmemd", json.dumps(wishes)]
    return shlex.join(words)


def answer(request: Create | Open, wishes: dict[str, Any]) -> Ready:
    """Return the answer of an honest target, with the fields that are wished."""
    return Ready(
        **{
            "provider": next(each for each in request.providers if each != SOCKETPAIR),
            "address": "127.0.0.1",
            "port": 40000,
            "lanes": (LaneGrant(token=bytes(32), key=0, address=0),) * request.lanes,
            "pool_size": request.pool_size or 1 << 20,
            "medium": "page",
            "steps": ("send-after-write",),
            "message_size": request.message_size,
            "window": 4,
            **wishes,
        }
    )


def _write(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]


def _respond(machine: TargetSession, event: Any, wishes: dict[str, Any]) -> None:
    for _ in range(wishes.get("logs", 0)):
        machine.log("warn", wishes.get("line", "line"))
        if len(machine._output) > _LIMIT:
            _write(machine.data_to_send())
    ready = answer(event.request, wishes.get("ready", {}))
    if "error" in wishes or "raw" in wishes:
        kind = Kind.ERROR if "error" in wishes else Kind.READY
        fields = wishes.get("error") or {**ready.to_json(), **wishes["raw"]}
        _write(machine.data_to_send())
        _write(encode_frame(kind, machine._serial, json.dumps(fields).encode(), limit=_LIMIT))
        return
    machine.ready(ready)


def _show(machine: TargetSession, request: Look | Peek | List, wishes: dict[str, Any]) -> None:
    """Answer who looks with what no check of ours sees."""
    length = request.length if isinstance(request, Peek) else 0
    honest = {
        "Look": {"pool_size": 1 << 22, "attributes": None, "medium": "page", "writer": False},
        "Peek": {"data": "00" * length, "writer": False},
        "List": {"sets": [], "last": True},
    }
    kind = {"Look": Kind.SEEN, "Peek": Kind.CONTENT, "List": Kind.LISTED}
    name = type(request).__name__
    fields = {**honest[name], **wishes.get("shown", {}).get(name, {})}
    payload = json.dumps(fields).encode()
    _write(encode_frame(kind[name], machine._serial, payload, limit=_LIMIT))
    machine.state = TargetState.LOOKING


def main() -> int:
    """Serve one initiator, or what passes for it."""
    wishes = json.loads(sys.argv[1])
    sys.stderr.write(wishes.get("stderr", ""))
    sys.stderr.flush()
    _write(pack_status(0))
    machine = TargetSession(Hello.of_this_process("rpmemd, hostile", FEATURES))
    while data := os.read(0, 1 << 16):
        for event in machine.receive(data):
            if isinstance(event, CreateRequested | OpenRequested):
                _respond(machine, event, wishes)
            elif isinstance(event, LookRequested):
                _show(machine, event.request, wishes)
            elif isinstance(event, DigestsRequested):
                payload = json.dumps(wishes["digests"]).encode()
                _write(encode_frame(Kind.DIGESTS, machine._serial, payload, limit=_LIMIT))
                machine.state = TargetState.OPEN
            elif isinstance(event, CloseRequested):
                machine.done()
        _write(machine.data_to_send())
    return 0


if __name__ == "__main__":
    sys.exit(main())
