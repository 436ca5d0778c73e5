"""Mistakes in the target: what it stores, flushes, answers, and whom it lets in."""

from __future__ import annotations

from tests.mutants import Mutant

_FUZZ = ("tests/unit/service/test_service_bounds.py", "tests/faults/test_inband_fuzz.py")
_CLAIMS = ("tests/faults/test_durability_claims.py",)
_DATABASE = ("tests/unit/rpmemd/test_database.py",)
_SERVICE = ("tests/unit/service/test_service.py",)
_BOUNDS = ("tests/unit/service/test_service_bounds.py",)
_REPLICA = "tests/integration/test_replica.py"
_LOOKING = ("tests/unit/rpmemd/test_looking.py",)
_ADMISSION = ("tests/unit/rpmemd/test_admission.py",)

MUTANTS = (
    Mutant(
        "deep is ignored by the target",
        "Service.settle",
        "if deep:",
        "if False:",
        _SERVICE,
    ),
    Mutant(
        "the target answers without a flush",
        "Service.settle",
        "return self.region.c_persist(low, high - low)",
        "return 0",
        _CLAIMS,
    ),
    Mutant(
        "the target does not drain",
        "Service.settle",
        "if not self.spans:\n            return self.region.c_drain()",
        "if not self.spans:\n            return 0",
        _SERVICE,
    ),
    Mutant(
        "the target flushes the last range only",
        "Service.note",
        "served.low = min(served.low, offset)",
        "served.low = offset",
        _SERVICE,
    ),
    Mutant(
        "the target flushes up to the end of the last range",
        "Service.note",
        "served.high = max(served.high, offset + length)",
        "served.high = offset + length",
        _SERVICE,
    ),
    Mutant(
        "a refused flush is answered with done",
        "settle_native",
        """rc = service.settle(served)
    if rc:""",
        """rc = service.settle(served)
    if False:""",
        _SERVICE,
    ),
    Mutant(
        "messages may write the header",
        "native_handler",
        "is_outside(descriptors[i].offset, n, service.floor, service.size)",
        "is_outside(descriptors[i].offset, n, 0, service.size)",
        _FUZZ,
    ),
    Mutant(
        "messages may write behind the pool",
        "native_handler",
        "is_outside(descriptors[i].offset, n, service.floor, service.size)",
        "(descriptors[i].offset < service.floor)",
        _FUZZ,
    ),
    Mutant(
        "a message of the past is stored again",
        "native_handler",
        "or header.sequence != <uint32_t> (served.sequence + 1)",
        "",
        _FUZZ,
    ),
    Mutant(
        "more data than the descriptors say are accepted",
        "native_handler",
        "if left:",
        "if False:",
        _FUZZ,
    ),
    Mutant(
        "a range is fetched from behind the pool",
        "fetch",
        "is_outside(wanted.offset, wanted.length, service.read_floor, service.size)",
        "False",
        _BOUNDS,
    ),
    Mutant(
        "PMDK: a message may write outside the pool",
        "pmdk_handler",
        "is_outside(offset, request.size, 0, service.size)",
        "False",
        _BOUNDS,
    ),
    Mutant(
        "a stranger without an address gets a lane",
        "PeerAdmission.admit",
        "if self._address is None or _binary(peer[0]) != self._address:",
        "if _binary(peer[0]) != self._address:",
        _ADMISSION,
    ),
    Mutant(
        "a token is good twice",
        "Tokens.redeem",
        "del self._left[lane]",
        "",
        ("tests/unit/session/test_lanes.py", *_ADMISSION),
    ),
    Mutant(
        "the end of a token is not compared",
        "_equal",
        "difference |= a ^ b",
        "difference |= a ^ b if len(one) < 32 else 0",
        _ADMISSION,
    ),
    Mutant(
        "an initiator reaches a sibling of the pool set directory",
        "Database.path_of",
        'inside = self.directory.rstrip("/") + "/"',
        'inside = self.directory.rstrip("/")',
        _DATABASE,
    ),
    Mutant(
        "a part passes for a pool set file",
        "Database._read",
        ">= MINIMUM_SIZE:",
        ">= 64 * MINIMUM_SIZE:",
        _DATABASE,
    ),
    Mutant(
        "names may lead through a parent directory",
        "Database.path_of",
        'elif ".." in name.split("/"):',
        "elif False:",
        _DATABASE,
    ),
    Mutant(
        "a hidden pool set file is made",
        "Database._text_for",
        'if any(piece.startswith(".") for piece in name.split("/")):',
        "if False:",
        _DATABASE,
    ),
    Mutant(
        "a session that created nothing may remove",
        "Session._stop",
        "pool.close(remove=remove and self._created)",
        "pool.close(remove=remove)",
        (f"{_REPLICA}::test_who_only_opened_a_pool_does_not_remove_it",),
    ),
    Mutant(
        "a protocol that the administrator refused is spoken",
        "Session._check_protocol",
        'if self._config.protocol not in ("both", self._dialect.name):',
        "if False:",
        (f"{_REPLICA}::test_a_protocol_that_the_administrator_refused_is_not_spoken",),
    ),
    Mutant(
        "read-after-write is offered where pages have to be synced",
        "LaneServer.steps",
        'READ_AFTER_WRITE: reached and apm and medium != "page" and',
        "READ_AFTER_WRITE: reached and apm and",
        (f"{_REPLICA}::test_steps_that_are_not_possible_are_refused",),
    ),
    Mutant(
        "commit is offered without persistent memory",
        "LaneServer.steps",
        'COMMIT: reached and medium == "pmem" and self.fabric.commits,',
        "COMMIT: reached and self.fabric.commits,",
        (f"{_REPLICA}::test_steps_that_are_not_possible_are_refused",),
    ),
    Mutant(
        "a forced command runs what the client wants",
        "_obey_client",
        "if rest:",
        "if False:",
        ("tests/unit/rpmemd/test_config.py",),
    ),
    Mutant(
        "the command line does not win over the file",
        "_read_command_line",
        "given.add(name)",
        "given.discard(name)",
        ("tests/unit/rpmemd/test_config.py",),
    ),
    Mutant(
        "who looks is shown what lies behind the pool",
        "Looker._peek",
        "if pool is None or offset + length > pool.size:",
        "if pool is None:",
        _LOOKING,
    ),
    Mutant(
        "a look locks the pool",
        "Database.look",
        "PoolFiles.look(self._read(name, lock=False))",
        "PoolFiles.open(self._read(name, lock=False))",
        _LOOKING,
    ),
    Mutant(
        "who looks believes an answer of another length",
        "InitiatorSession._shown",
        "if len(answer.data) != request.length:",
        "if False:",
        ("tests/unit/control/test_control_looking.py",),
    ),
)
