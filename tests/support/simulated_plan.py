"""The plan drawn from a simulation's seed: the fabric, the session, the fault, the calls."""

from __future__ import annotations

import random

from tests.support.compiled import compiled

fake = compiled("_fake_world")

#: Bytes of a pool, and of its header.
SIZE, FLOOR = 16384, 4096
#: The step that needs nothing of a fabric.
MESSAGES = "send-after-write"
#: What a step can be told to do wrong; the model has to notice.
BREACHES = ("counts answers", "does not wait", "forgets", "doubles posts", "skips flush")

_KINDS = (
    *("persist", "persist", "relaxed", "many", "flush", "flush"),
    *("drain", "deep", "read", "put", "wait"),
)
_STEPS = (MESSAGES, "read-after-write", "commit", "flush")
_NATIVE_ONLY = (fake.FAULT_DROP_REPLY, fake.FAULT_DROP_MESSAGE, fake.FAULT_DOUBLE_MESSAGE)


class Plan:
    """What a seed means: the fabric, the session, what goes wrong, and the calls."""

    def __init__(self, seed: int, breach: str = "") -> None:
        self.seed = seed
        self.breach = breach
        draw = self.random = random.Random(seed)
        self.pmdk = breach == "" and draw.random() < 0.15
        self.step = draw.choice(_STEPS[:2] if self.pmdk else _STEPS)
        if breach == "forgets":
            self.step = draw.choice(_STEPS[2:])
        elif breach == "doubles posts":
            self.step = "commit"
        elif breach in ("counts answers", "skips flush"):
            self.step = MESSAGES
        self.replicas = draw.choice((1, 1, 2))
        self.lanes = 1 if self.pmdk else draw.choice((1, 2, 3))
        self.medium = "pmem" if self.step != MESSAGES else draw.choice(("page", "pmem"))
        self.stages = not self.pmdk and self.step == MESSAGES and draw.random() < 0.15
        self.message_size = draw.choice((128, 256, 1024, 4096))
        self.fault = draw.randrange(fake.FAULTS) if breach == "" and draw.random() < 0.7 else 0
        if self.pmdk and self.fault in _NATIVE_ONLY:
            # Its answers have no number: one that is lost cannot be told from the next.
            self.fault = fake.FAULT_CUT
        self.world = {
            "delay_ns": draw.choice((0, 1000, 10_000, 400_000, 3_000_000)),
            "depth": draw.choice((3, 8, 64)),
            "again_in": draw.choice((0, 0, 2, 9)),
            "double_in": 0 if self.pmdk else draw.choice((0, 0, 2, 5)),
            "doubles_posts": breach == "doubles posts",
            "early": draw.random() < 0.5,
            "holds": draw.random() < 0.5,
            "pins": draw.random() < 0.5,
            "fails_polls": draw.random() < 0.3,
            "delivers": self.step == "read-after-write" and draw.random() < 0.5,
            "inline_limit": draw.choice((0, 64, 256)),
            "operation_limit": 1 << 20 if self.stages else draw.choice((512, 4096, 1 << 20)),
            "fault": self.fault,
            "fault_at": draw.choice((1, 3, 10, 30)) + draw.randrange(20),
            "fault_target": draw.randrange(self.replicas),
        }
        if breach in ("counts answers", "doubles posts"):
            self.world["double_in"] = 2
        self.spin_s = draw.choice((0.0, 50e-6))
        self.calls = draw.randrange(4, 16)
        # From a source of its own, so that a seed goes on to mean what it meant.
        self.lends = random.Random(~seed).random() < 0.5
        self.kinds = _KINDS
        if self.fault == fake.FAULT_SILENT_INTERRUPT:
            # Only a read has to wait for what it asked for.
            self.kinds += ("read",) * len(_KINDS)
