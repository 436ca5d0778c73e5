"""The originals against each other: proves that programs and fixtures are right.

That takes a test of every kind, named in ``by_default``; the others are left to the nightly run.
"""

from __future__ import annotations

import errno

import pytest

from tests.interop.support.attributes import Attributes
from tests.interop.support.calls import SIZE, LibrpmemCalls, Starter, created
from tests.interop.support.client import NoAnswer
from tests.interop.support.node import ORIGINAL, Node
from tests.interop.support.objects import ObjectPrograms
from tests.interop.support.refusals import LibrpmemRefusals


class TestCalls(LibrpmemCalls):
    daemon = ORIGINAL
    by_default = (
        "test_bytes_reach_the_part",
        "test_open_gives_attributes_and_contents",
        "test_several_parts_are_one_pool",
        "test_remove_leaves_the_pool_set",
        "test_the_method_is_logged",
    )


class TestRefusals(LibrpmemRefusals):
    daemon = ORIGINAL
    by_default = ("test_missing_set", "test_in_use", "test_damaged_header", "test_zeroed_header")


class TestObjects(ObjectPrograms):
    daemon = ORIGINAL
    by_default = (
        "test_create_fills_both_sides",
        "test_killed_in_the_middle_of_a_transaction",
        "test_rm_removes_both_sides",
    )


class TestTheLibraryItself:
    """What librpmem refuses or gets wrong by itself; ours follows the first, not the second."""

    daemon = ORIGINAL

    @pytest.mark.parametrize(
        ("memory", "lanes"),
        [
            ((SIZE, "null"), 1),
            ((SIZE, "skew", 100), 1),
            ((SIZE - 1,), 1),
            ((0,), 1),
            ((SIZE,), 0),
            ((SIZE,), "-"),
        ],
        ids=["null", "misaligned", "odd-size", "size-0", "lanes-0", "lanes-null"],
    )
    def test_arguments_of_create(
        self, librpmem: Starter, node: Node, memory: tuple[object, ...], lanes: object
    ) -> None:
        name = node.make_set(SIZE)
        with librpmem() as client:
            client.do("pool", *memory)
            client.do("attr", Attributes().hex())
            assert client.errno("create", node.host, name, lanes) == errno.EINVAL
        assert node.log == ""

    def test_bad_arguments_do_no_harm(self, librpmem: Starter, node: Node) -> None:
        with librpmem() as client:
            created(client, node, node.make_set(SIZE))
            for call in (
                ("persist", 0, 16, 0, 0),
                ("persist", 4095, 1, 0, 0),
                ("persist", 4096, 16, 0, 6),
                ("flush", 0, 16, 0, 0),
                ("flush", 4096, 16, 0, 2),
                ("drain", 0, 1),
                ("deep", 0, 16, 0),
            ):
                assert client.errno(*call) == errno.EINVAL, call
            client.do("persist", 4096, 16, 0, 0)
            client.do("close")

    @pytest.mark.parametrize(
        "call",
        [
            ("persist", SIZE, 1, 0, 0),
            ("persist", SIZE, 0, 0, 0),
            ("persist", SIZE - 32, 33, 0, 1),
            ("flush", SIZE, 1, 0, 0),
            ("deep", SIZE, 1, 0),
            ("persist", 4096, 16, 4, 0),
            ("drain", 4, 0),
        ],
        ids=str,
    )
    def test_these_spoil_the_session(
        self, librpmem: Starter, node: Node, call: tuple[object, ...]
    ) -> None:
        with librpmem() as client:
            created(client, node, node.make_set(SIZE))
            assert client.errno(*call) == errno.EINVAL
            assert client.errno("persist", 4096, 16, 0, 0) == errno.EINVAL
            client.do("close")

    @pytest.mark.slow
    @pytest.mark.parametrize(
        "call",
        [("persist", 4096, (1 << 64) - 1, 0, 0), ("read", SIZE - 8, 16, 0)],
        ids=["wrapping-persist", "read-beyond-the-end"],
    )
    def test_these_hang(self, librpmem: Starter, node: Node, call: tuple[object, ...]) -> None:
        client = librpmem()
        created(client, node, node.make_set(SIZE))
        with pytest.raises(NoAnswer):
            client.ask(*call, timeout=3)
