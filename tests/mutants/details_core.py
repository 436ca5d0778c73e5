"""Slips of a tired hand in compiled code: a mark that stays, a piece that is somebody else's."""

from __future__ import annotations

from tests.mutants import Mutant

_SERVICE = ("tests/unit/service/test_service.py", "tests/unit/service/test_service_bounds.py")

MUTANTS = (
    Mutant(
        "after one deep persist all are deep",
        "Service.settle",
        "        served.deep = False\n",
        "",
        _SERVICE,
    ),
)
