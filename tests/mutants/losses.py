"""What calls tell of a replica that is lost."""

from __future__ import annotations

from tests.mutants import Mutant

_LOSSES = ("tests/unit/engine/test_losses.py", "tests/unit/engine/test_lent_bytes.py")

MUTANTS = (
    Mutant(
        "who comes after the call that found out is not told what it found",
        "group_tell",
        "fault = link.lane.state",
        "fault = LANE_ABORTED",
        _LOSSES,
    ),
    Mutant(
        "who comes later changes why a replica was lost",
        "group_fail",
        "if link == NULL else",
        "if True else",
        _LOSSES,
    ),
    Mutant(
        "who gets no lane is told the name of a replica that answered",
        "waited_for",
        "OPERATION_FINISHED == 0",
        "OPERATION_FINISHED != 0",
        ("tests/faults/test_stops_reading.py",),
    ),
)
