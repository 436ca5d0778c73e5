"""Slips of a tired hand in rpmemd's own code: options, names, admission, its log."""

from __future__ import annotations

from tests.mutants import Mutant

_CONFIG = ("tests/unit/rpmemd/test_config.py",)
_ADMISSION = ("tests/unit/rpmemd/test_admission.py",)

MUTANTS = (
    Mutant(
        "every connection that is refused is logged",
        "Refusals.note",
        "if self._count <= MOST_LOGGED:",
        "if self._count:",
        (*_ADMISSION, "tests/faults/test_floods.py"),
    ),
    Mutant(
        "a peer gets more lanes than were granted",
        "PeerAdmission.admit",
        "if self._next == self._lanes:",
        "if self._next > self._lanes:",
        _ADMISSION,
    ),
    Mutant(
        "the same peer by IPv4 and by IPv6 is another",
        "_binary",
        "return raw[len(_MAPPED) :] if raw.startswith(_MAPPED) else raw",
        "return raw",
        _ADMISSION,
    ),
    Mutant(
        "a number of any size is an option's value",
        "_number",
        " or int(value) > largest",
        "",
        _CONFIG,
    ),
    Mutant(
        "rpmemd may make files that it cannot write",
        "_mode",
        " or int(value, 8) & PRIVATE != PRIVATE",
        "",
        _CONFIG,
    ),
    Mutant(
        "a log file does not take the place of syslog",
        "_with",
        'changes["use_syslog"] = False',
        "pass",
        _CONFIG,
    ),
    Mutant(
        "a configuration file of any length is read",
        "_read_file",
        "if len(text) > _SIZE_LIMIT:",
        "if False:",
        _CONFIG,
    ),
)
