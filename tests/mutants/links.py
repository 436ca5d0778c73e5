"""Mistakes between the two sides: fabrics, doors, protocols, launch, signals."""

from __future__ import annotations

from tests.mutants import Mutant

_FLOODS = ("tests/unit/fabric/test_door.py", "tests/faults/test_floods.py")
_HOSTS = ("tests/unit/session/test_lanehosts.py",)
_PMDK = ("tests/unit/control/test_control_pmdk.py",)
_MESSAGES = ("tests/unit/control/test_control_messages.py",)
_INTERRUPTS = ("tests/unit/base/test_interrupts.py",)
_REPLICA = ("tests/integration/test_replica.py",)
_TARGET = ("tests/unit/base/test_target.py",)
_LAUNCH = ("tests/integration/test_launch.py",)
_CHILD = ("tests/unit/launch/test_child_transport.py",)

MUTANTS = (
    Mutant(
        "a write's completion comes before it is delivered",
        "post_flags",
        "out |= FI_DELIVERY_COMPLETE",
        "out |= 0",
        ("tests/faults/test_durability_claims.py",),
    ),
    Mutant(
        "one-sided operations ignore where the pool begins",
        "fabric_read",
        "remote.addr = own.remote_address + offset",
        "remote.addr = offset + 8",
        _REPLICA,
    ),
    Mutant(
        "a broken connection goes unnoticed",
        "fabric_fault",
        "out.kind = COMPLETED_FAULT",
        "out.kind = COMPLETED_SEND",
        ("tests/faults/test_deaths.py::test_a_lane_whose_other_end_died_shows_a_fault",),
    ),
    Mutant(
        "who says nothing waits at the door for ever",
        "Door._expire",
        "if each.since <= late",
        "if False",
        _FLOODS,
    ),
    Mutant(
        "one source may have all the room at the door",
        "Door._make_room",
        "if len(alike) > self._most_of_one:",
        "if False:",
        _FLOODS,
    ),
    Mutant(
        "a request of any size is waited for",
        "Visitor._judge",
        "if size > _LARGEST_DATA or missing < 0:",
        "if False:",
        _FLOODS,
    ),
    Mutant(
        "the connection of somebody else is taken over",
        "_has_peer",
        "return found == peer",
        "return True",
        _FLOODS,
    ),
    Mutant(
        "lanes go wherever the target says",
        "LaneHosts.__init__",
        "self.left_out = ready.address",
        "self.hosts.append(ready.address)",
        _HOSTS,
    ),
    Mutant(
        "lanes go to any port",
        "LaneHosts.__init__",
        "if ready.port < _LOWEST_PORT:",
        "if False:",
        _HOSTS,
    ),
    Mutant(
        "an allowed network allows everything",
        "_covers",
        "return wanted.version == network.version and wanted in network",
        "return True",
        _HOSTS,
    ),
    Mutant(
        "PMDK: an answer of another size is taken",
        "PmdkInitiatorSession._decode",
        "if surplus > 0:",
        "if False:",
        _PMDK,
    ),
    Mutant(
        "PMDK: bytes nobody asked for are kept",
        "PmdkInitiatorSession._decode",
        "if self._request is None:",
        "if False:",
        _PMDK,
    ),
    Mutant(
        "PMDK: a refusal is a success",
        "PmdkInitiatorSession._take",
        "if status is not Status.SUCCESS:",
        "if False:",
        _PMDK,
    ),
    Mutant(
        "PMDK: a request of any size is waited for",
        "decode_request_header",
        "if not low <= size <= high:",
        "if False:",
        _PMDK,
    ),
    Mutant(
        "an integer outside its bounds is taken",
        "Integer.check",
        "if not self.low <= number <= self.high:",
        "if False:",
        _MESSAGES,
    ),
    Mutant(
        "a list of any length is taken",
        "ListOf._check_length",
        "if not self.low <= length <= self.high:",
        "if False:",
        _MESSAGES,
    ),
    Mutant(
        "a field that is missing is not missed",
        "Record.from_json",
        "elif name not in cls._defaults:",
        "elif False:",
        _MESSAGES,
    ),
    Mutant(
        "a secret is shown",
        "Value.__repr__",
        "if n not in self._hidden",
        "",
        _MESSAGES,
    ),
    Mutant(
        "a call that was interrupted goes on",
        "check",
        "raise Interrupted",
        "return",
        _INTERRUPTS,
    ),
    Mutant(
        "what was complete at the moment of the signal stays",
        "_Call._run_discard",
        "self._discard(result)",
        "pass",
        _INTERRUPTS,
    ),
    Mutant(
        "undoing is interrupted, too",
        "check",
        "if call is None or not call.cancelled or _local.undoing:",
        "if call is None or not call.cancelled:",
        _INTERRUPTS,
    ),
    Mutant(
        "what could not be undone is not named",
        "_Call.cancel",
        "if self.left:",
        "if False:",
        _INTERRUPTS,
    ),
    Mutant(
        "who is woken between a last look and the sleep sleeps on",
        "fabric_wake",
        "rpmem_exchange(&queue.woken, 1)",
        "pass",
        ("tests/integration/test_lanes.py",),
    ),
    Mutant(
        "what a target that hangs in a creation may have left is not named",
        "Channel.close",
        "if remove and not answered:",
        "if False:",
        ("tests/faults/test_signals_ssh.py",),
    ),
    Mutant(
        "a login that is broken off at once leaves a timer",
        "Connection.close",
        "session.packetizer.complete_handshake()",
        "pass",
        _LAUNCH,
    ),
    Mutant(
        "a child outlives its transport",
        "ChildTransport.close",
        "self._signal(signal.SIGTERM)",
        "return",
        _CHILD,
    ),
    Mutant(
        "a child gets what sshd says of another connection",
        "_child_environment",
        "if name not in _SSHD_VARIABLES",
        "",
        (*_LAUNCH, "tests/unit/launch/test_child_transport.py"),
    ),
    Mutant(
        "a target string may smuggle an option to ssh",
        "_check_host",
        'if host.startswith("-"):',
        "if False:",
        _TARGET,
    ),
    Mutant(
        "the replica's step is not the one that was asked for",
        "_choose",
        "elif wanted in possible:",
        "elif possible:",
        ("tests/integration/test_replica.py::test_steps_that_are_not_possible_are_refused",),
    ),
    Mutant(
        "zeros stop at the first mebibyte",
        "PoolMedium.zero",
        "for begin in range(offset, offset + length, len(zeros)):",
        "for begin in (offset,):",
        ("tests/unit/pool/test_pool_local.py::test_large_arrays_are_zero_where_others_were",),
    ),
    Mutant(
        "a failed session is not told to its lanes",
        "Replica.on_failure",
        "self._group.abort()",
        "pass",
        (f"{_REPLICA[0]}::test_a_session_that_failed_ends_the_calls_on_its_lanes",),
    ),
    Mutant(
        "an answer to an earlier request is taken for this one's",
        "Channel._await",
        "if isinstance(answer, kind):",
        "if answer is not None:",
        ("tests/faults/test_hostile_control.py",),
    ),
    Mutant(
        "half of a checksum is summed up with the rest",
        "checksum",
        "words[position // 4] = words[position // 4 + 1] = 0",
        "words[position // 4] = 0",
        ("tests/unit/files/test_header.py",),
    ),
    Mutant(
        "locks outlive a close where a child has the file",
        "unlock",
        "fcntl.flock(descriptor, fcntl.LOCK_UN)",
        "pass",
        ("tests/unit/files/test_partfile.py", "tests/unit/files/test_poolfiles.py"),
    ),
    Mutant(
        "damage that stays is read again for ever, and then believed",
        "undisturbed",
        "if alone > 1:",
        "if False:",
        ("tests/unit/files/test_partfile.py", "tests/unit/pool/test_pool_local.py"),
    ),
    Mutant(
        "the door puts no descriptors by",
        "Door.__init__",
        "self._seats = Spare(expected)",
        "self._seats = Spare(0)",
        ("tests/unit/fabric/test_spare.py",),
    ),
    Mutant(
        "descriptors that were given away for a moment stay away",
        "Spare.refill",
        "self._fill()",
        "return",
        ("tests/unit/fabric/test_spare.py",),
    ),
)
