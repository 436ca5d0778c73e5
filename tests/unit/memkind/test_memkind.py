"""Memory kinds: arrays land where they should, and their memory goes back where it came from."""

from __future__ import annotations

import gc
import importlib
import os
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest

from rpmem.errors import ClosedError, ForkedError, MissingExtension, UsageError
from tests.support.without import Installation

MIB = 1 << 20


@pytest.fixture(scope="module")
def memkind():
    try:
        return importlib.import_module("rpmem.memkind")
    except MissingExtension as missing:
        pytest.skip(f"no memory kinds here: {missing}")


@pytest.fixture
def kind(memkind, tmp_path):
    """Return a kind in a file, and see to it that nothing is left in it."""
    kind = memkind.pmem(tmp_path, "64MiB")
    yield kind
    gc.collect()
    assert kind.arrays == 0
    kind.close()


def handler_name(array):
    return np._core.multiarray.get_handler_name(array)


# --- without the library --------------------------------------------------------------------------


def test_without_the_extension_only_this_module_is_missing(tmp_path):
    program = (
        "import rpmem; rpmem.Pool; rpmem.create\n"
        "try:\n"
        "    from rpmem import memkind\n"
        "except rpmem.MissingExtension as error:\n"
        "    print(error)\n"
    )
    done = Installation(tmp_path, "rpmem.memkind.kinds").run("-c", program)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("rpmem.memkind.kinds: this part of rpmem was not built")


def test_the_package_does_not_load_it():
    program = "import sys, rpmem; rpmem.Pool; print('rpmem.memkind.kinds' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr


# --- kinds ----------------------------------------------------------------------------------------


def test_kinds_of_every_machine(memkind):
    kinds = memkind.available()
    assert memkind.DEFAULT in kinds
    assert memkind.REGULAR in kinds
    assert all(kind.name in memkind.__all__ for kind in kinds)
    assert memkind.REGULAR.capacity > 0


def test_a_kind_that_is_not_there(memkind):
    missing = [kind for kind in memkind.KINDS.values() if not kind.available]
    if not missing:
        pytest.skip("this machine has every kind of memory")
    kind = missing[0]
    assert kind.capacity is None
    with pytest.raises(UsageError, match=kind.name):
        kind.empty(3)
    with pytest.raises(UsageError), kind.numpy_handler():
        pytest.fail("a block was entered with memory that is not there")
    assert "default" in handler_name(np.empty(3))


def test_kinds_are_not_made_by_hand(memkind):
    with pytest.raises(TypeError, match="pmem"):
        memkind.Kind()


@pytest.mark.parametrize("name", ["REGULAR", "DEFAULT", "INTERLEAVE", "HIGHEST_CAPACITY"])
def test_arrays_of_the_machine_s_kinds(memkind, name):
    kind = getattr(memkind, name)
    if not kind.available:
        pytest.skip(f"this machine has no memory of kind {name}")
    before = kind.arrays
    array = kind.zeros((100, 100), "i4")
    assert not array.any()
    array[:] = 7
    assert array.sum() == 70_000
    assert kind.holds(array)
    assert kind.arrays == before + 1
    assert kind.allocated >= array.nbytes
    del array
    assert kind.arrays == before


# --- the numpy handler ----------------------------------------------------------------------------


def test_new_arrays_land_in_the_kind(kind):
    with kind.numpy_handler() as same:
        assert same is kind
        array = np.arange(1000.0)
        product = array * 2
    outside = product + 1
    assert kind.holds(array)
    assert kind.holds(product)
    assert kind.holds(array[10:20].reshape(2, 5))
    assert not kind.holds(outside)
    assert not kind.holds(b"")
    assert handler_name(product).startswith("memkind pmem:")
    assert kind.arrays == 2
    assert outside[3] == 7


def test_arrays_are_freed_after_the_block_and_in_other_threads(kind):
    with kind.numpy_handler():
        arrays = [np.full(100_000, n) for n in range(8)]
    taken = kind.allocated
    assert taken >= 8 * 800_000
    thread = threading.Thread(target=arrays.clear)
    thread.start()
    thread.join()
    assert kind.arrays == 0
    assert kind.allocated == 0


def test_memory_is_used_again(kind):
    for _ in range(100):
        kind.empty(20 * MIB, "u1")[0] = 1
    assert kind.arrays == 0


def test_blocks_nest_and_end_with_errors(memkind, kind):
    def fail():
        with memkind.REGULAR.numpy_handler():
            made.append(np.empty(10))
            raise ZeroDivisionError

    made = []
    with kind.numpy_handler():
        with pytest.raises(ZeroDivisionError):
            fail()
        outer = np.empty(10)
    assert memkind.REGULAR.holds(made[0])
    assert kind.holds(outer)
    assert "default" in handler_name(np.empty(10))
    again = kind.numpy_handler()
    with again, again:
        assert kind.holds(np.empty(10))
    assert "default" in handler_name(np.empty(10))


def test_threads_do_not_inherit_the_handler(kind):
    found = []
    with kind.numpy_handler():
        thread = threading.Thread(target=lambda: found.append(np.empty(10)))
        thread.start()
        thread.join()
    if getattr(sys.flags, "thread_inherit_context", 0):
        pytest.skip("this Python was told to let threads inherit contexts")
    assert not kind.holds(found[0])


def test_many_threads(kind):
    problems = []

    def work(seed):
        rng = np.random.default_rng(seed)
        kept = []
        with kind.numpy_handler():
            for turn in range(300):
                array = np.full(int(rng.integers(0, 5000)), seed)
                kept.append(array)
                if len(kept) > 10:
                    kept.pop(int(rng.integers(10)))
                if any((each != seed).any() for each in kept):
                    problems.append((seed, turn))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems
    assert kind.arrays == 0
    assert kind.allocated == 0


def test_odd_sizes(kind):
    nothing = kind.empty(0)
    assert nothing.shape == (0,)
    assert kind.zeros((3, 0, 2), "c16").size == 0
    assert kind.zeros((), "f4") == 0
    text = kind.empty(3, "S5")
    text[:] = b"words"
    assert list(text) == [b"words"] * 3
    assert kind.zeros((3, 4), order="F").flags.f_contiguous


def test_resizing_keeps_content_and_kind(kind):
    array = kind.zeros(1000, "i8")
    array[:] = range(1000)
    array.resize(1_000_000, refcheck=False)
    assert kind.holds(array)
    assert array[:1000].sum() == 499_500
    assert kind.allocated >= 8_000_000
    array.resize(0, refcheck=False)
    assert kind.arrays == 1


def test_views_of_foreign_memory_are_not_held(kind):
    with kind.numpy_handler():
        foreign = np.frombuffer(bytearray(100), "u1")
    assert not kind.holds(foreign)
    assert kind.arrays == 0


def test_a_full_kind(kind):
    kept = kind.empty(40 * MIB, "u1")
    with pytest.raises(MemoryError):
        kind.empty(40 * MIB, "u1")
    with pytest.raises(MemoryError):
        kind.empty(1 << 60, "u1")
    with pytest.raises(MemoryError):
        kept.resize(100 * MIB, refcheck=False)
    kept[:] = 1
    assert kind.holds(kept)


# --- kinds in a directory -------------------------------------------------------------------------


def test_closing_is_refused_while_arrays_live(kind):
    array = kind.zeros(10)
    view = array[5:]
    del array
    with pytest.raises(BufferError, match="1 array"):
        kind.close()
    view[:] = 3
    assert view.sum() == 15
    assert not kind.closed


def test_a_closed_kind(memkind, tmp_path):
    with memkind.pmem(tmp_path) as kind:
        assert kind.capacity is None
        assert kind.available
        handler = kind.numpy_handler()
    assert kind.closed
    assert not kind.available
    assert kind.arrays == kind.allocated == 0
    assert "closed" in repr(kind)
    kind.close()
    with pytest.raises(ClosedError):
        kind.empty(3)
    with pytest.raises(ClosedError), handler:
        pytest.fail("a closed kind was entered")
    with pytest.raises(ClosedError), kind:
        pytest.fail("a closed kind was entered")


def test_closing_inside_the_block(memkind, tmp_path):
    kind = memkind.pmem(tmp_path)
    with kind.numpy_handler():
        kind.close()
        with pytest.raises(MemoryError):
            np.empty(10)
    assert np.empty(10).size == 10


def test_a_forgotten_kind_goes_with_its_last_array(memkind, tmp_path):
    kind = memkind.pmem(tmp_path, "16MiB")
    array = kind.zeros(1000)
    del kind
    array[:] = 1
    assert array.sum() == 1000
    assert f"{tmp_path}/" in mapped()
    del array
    assert f"{tmp_path}/" not in mapped()


def mapped():
    return Path("/proc/self/maps").read_text()


def test_the_file_has_no_name(kind, tmp_path):
    kind.zeros(1000)
    assert list(tmp_path.iterdir()) == []
    assert kind.capacity == 64 * MIB
    assert kind.directory == str(tmp_path)


@pytest.mark.parametrize(
    ("where", "size", "words"),
    [
        ("missing", None, "No such file or directory"),
        ("a_file", None, "Not a directory"),
        ("", MIB, "16777216"),
        ("", "much", "is not a size"),
        ("", -1, "is not a size"),
    ],
)
def test_kinds_that_cannot_be_made(memkind, tmp_path, where, size, words):
    (tmp_path / "a_file").touch()
    with pytest.raises(UsageError, match=words):
        memkind.pmem(tmp_path / where, size)


def in_child(work):
    """Run `work` in a forked child; return its exit status."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads and fork: on purpose
        child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_forked_child_cannot_hurt_its_parent(kind):
    arrays = [kind.zeros(MIB), kind.zeros(10)]
    arrays[0][:] = 5

    def work():
        assert arrays[0].sum() == 5 * MIB
        with pytest.raises(ForkedError):
            kind.empty(10)
        with pytest.raises(MemoryError):
            arrays[1].resize(MIB, refcheck=False)
        arrays.clear()
        gc.collect()
        kind.close()

    assert in_child(work) == 0
    assert arrays[0].sum() == 5 * MIB
    assert kind.holds(kind.zeros(MIB))


def test_kinds_of_the_machine_work_in_a_child(memkind):
    def work():
        array = memkind.REGULAR.zeros(1000)
        array[:] = 1
        assert array.sum() == 1000

    assert in_child(work) == 0


# --- together with the rest of rpmem --------------------------------------------------------------


def test_an_array_of_a_kind_is_replicated(kind, tmp_path):
    import rpmem

    target, node = f"local:{tmp_path}/node", tmp_path / "node"
    node.mkdir()
    (node / "one.set").write_text(f"PMEMPOOLSET\nOPTION NOHDRS\n4M {node}/one.part\n")
    array = kind.zeros(2 * MIB // 8)
    with rpmem.create(target, "one.set", array) as replica:
        array[100:200] = 1.5
        replica.persist(800, 800)
        with pytest.raises(BufferError):
            kind.close()
        back = np.empty(100)
        replica.read(back, 800)
    assert (back == 1.5).all()


def test_a_pool_in_memory_of_a_kind(kind, tmp_path):
    import rpmem

    (tmp_path / "node").mkdir()
    memory = kind.zeros(4 * MIB, "u1")
    replica = f"local:{tmp_path}/node two.set"
    with rpmem.Pool.create(memory, replicas=[replica], parts=1) as pool:
        pool.array("x", 1000, "f4")[:] = 2
        pool.persist()
    memory[:] = 0
    with rpmem.Pool.restore(memory, replica) as pool:
        assert pool["x"].sum() == 2000
