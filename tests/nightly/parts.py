"""The table of the long proofs; a new one is a new line."""

from __future__ import annotations

from tests.nightly import Part

#: No part takes longer; what is not done by then goes on with the next call.
LIMIT_S = 90 * 60

PARTS = (
    Part(
        "tests",
        "the tests that `make test` leaves out hold, apart from those in the parts below",
        "{pytest} -m slow -n 4 --dist loadgroup --no-loadscope-reorder --ignore tests/rdma "
        "--ignore tests/faults/test_storage_that_fails.py "
        "--ignore tests/faults/test_shown_stays.py --ignore tests/faults/test_equal_copies.py "
        "--ignore tests/faults/test_signals.py --ignore tests/faults/test_signals_ssh.py "
        "--ignore tests/faults/test_signal_storms.py",
        rounds=1,
        minutes=15,
    ),
    Part(
        "sanitized",
        "AddressSanitizer and UndefinedBehaviorSanitizer have nothing to report",
        "scripts/debug {options} -n 4 --dist loadgroup --no-loadscope-reorder --timeout 600 "
        "tests/unit tests/integration tests/faults --ignore tests/unit/project",
        rounds=1,
        minutes=60,
    ),
    Part(
        "kills",
        "20,000 SIGKILLs of a target and 20,000 of an initiator lose nothing acknowledged",
        "{pytest} tests/faults/test_sigkill_target.py tests/faults/test_sigkill_initiator.py",
        rounds=200,
        minutes=60,
    ),
    Part(
        "signals",
        "1,000 signals in each call take effect soon and leave nothing behind",
        "{pytest} -m slow tests/faults/test_signals.py tests/faults/test_signals_ssh.py "
        "tests/faults/test_signal_storms.py tests/unit/base/test_interrupts.py",
        rounds=1,
        minutes=60,
    ),
    Part(
        "encrypted",
        "a million damaged handshakes and frames open no lane and reach nothing outside",
        "{pytest} tests/faults/test_secret_fuzz.py",
        rounds=50,
        minutes=60,
    ),
    Part(
        "fuzz",
        "a million coverage-guided inputs for both sides of a lane, before and after its "
        "handshake: the sanitizers and a second reading of the frames have nothing to report",
        "{python} -m tests.fuzz.run --runs 1000000 --seed {seed}",
        rounds=1,
        minutes=30,
    ),
    Part(
        "storage",
        "every call that touches a file, name, lock or mapping fails once, and no success is false",
        "{pytest} -m slow tests/faults/test_storage_that_fails.py",
        rounds=1,
        minutes=90,
    ),
    Part(
        "powercut",
        "100,000 images after a simulated power cut have what was acknowledged",
        "{python} -m tests.support.powercut.runs --minutes 85",
        rounds=1,
        minutes=60,
    ),
    Part(
        "crashpoints",
        "a change of a pool's copies, cut off after every event on every machine, leaves what the "
        "next open understands",
        "{python} -m tests.support.crashpoints --seed $(({seed} * 40)) --seeds 2 --scripts 40",
        rounds=1,
        minutes=60,
    ),
    Part(
        "copies",
        "SIGKILLs of initiators and targets, while copies come and go, leave no copy that has less "
        "than it says",
        "{pytest} -m 'slow or not slow' tests/faults/test_sigkill_copies.py",
        rounds=3,
        minutes=30,
    ),
    Part(
        "shown",
        "5,000 SIGKILLs of a program, many while its pool ends: what an opened pool has shown is "
        "there whichever copy is opened later",
        "{pytest} -m 'slow or not slow' tests/faults/test_shown_stays.py",
        rounds=5,
        minutes=60,
    ),
    Part(
        "equal",
        "5,000 kills, cuts of the network and flipped bits, at random moments: copies are equal, "
        "or a map says where they are not",
        "{pytest} -m 'slow or not slow' tests/faults/test_equal_copies.py",
        rounds=8,
        minutes=90,
    ),
    Part(
        "simulation",
        "100,000 sessions, in which a fabric delays, repeats, loses and cuts, keep what was "
        "acknowledged and say what went wrong",
        "{python} -m tests.support.simulation --seed $(({seed} * 10000)) --count 10000",
        rounds=10,
        minutes=30,
    ),
    Part(
        "epochs",
        "1,000,000 random histories of copies and two writers go as a model of the rules says, and "
        "nothing acknowledged is overwritten",
        "{python} -m tests.support.epoch_runs --seed $(({seed} * 50000)) --count 50000",
        rounds=20,
        minutes=40,
    ),
    Part(
        "verified",
        "copies that are verified beside threads that store and persist for an hour: no false "
        "alarm, and every flipped bit that can be known is found",
        "{python} -m tests.support.verified 3600 --seed {seed}",
        rounds=1,
        minutes=65,
    ),
    Part(
        "changes",
        "100,000 stores of every kind in each mode, by threads, while copies fail, calls are "
        "interrupted and children fork: persist() misses no page",
        "{python} -m tests.support.changes {seed} 20000",
        rounds=10,
        minutes=30,
    ),
    Part(
        "mutants",
        "the tests notice single mistakes in the code",
        "scripts/mutants {resume}",
        rounds=1,
        minutes=90,
    ),
    Part(
        "wheel",
        "wheels work under every Python here and on machines made afresh, with each library or not",
        "{python} -m tests.wheel.make && {python} -m tests.wheel.run --again",
        rounds=1,
        minutes=45,
    ),
    Part(
        "rdma",
        "the tests that need RDMA and persistent memory hold, with two kernels",
        "scripts/test-rdma --slow --quick --cuts 0 --seed {seed}",
        rounds=1,
        minutes=60,
    ),
    Part(
        "cuts",
        "102 power cuts of the emulated machine lose nothing acknowledged",
        "scripts/test-rdma --kernel new --quick --cuts 1 --seed {seed} --command true",
        rounds=17,
        minutes=60,
    ),
)
