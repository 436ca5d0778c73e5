"""Calls of the original librpmem that must go well, whichever daemon answers them.

The class holds tests; a test module derives from it and names the daemon.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable

import pytest

from tests.interop.support.attributes import (
    SINGLEHDR,
    ZERO,
    Attributes,
    header_block,
    header_checksum,
)
from tests.interop.support.client import RpmemClient, pattern
from tests.interop.support.node import MIB, Node

Starter = Callable[..., RpmemClient]
SIZE = 4 * MIB


def created(client: RpmemClient, node: Node, name: str, **settings: object) -> int:
    """Create a pool over the whole local memory; returns the lanes granted."""
    size = settings.get("size", SIZE)
    attributes = settings.get("attributes", Attributes().hex())
    client.do("pool", size)
    client.do("attr", attributes)
    answer = client.do("create", node.host, name, settings.get("lanes", 4))
    return int(answer["nlanes"])


def method_client(librpmem: Starter, method: str) -> RpmemClient:
    """Start a client whose daemon uses one persistency method."""
    if method == "apm":
        return librpmem("--persist-apm", variables={"PMEM_IS_PMEM_FORCE": "1"})
    return librpmem()


class LibrpmemCalls:
    """Every call of librpmem that goes well."""

    daemon: str

    def test_create_makes_the_part_with_its_header(self, librpmem: Starter, node: Node) -> None:
        name = node.make_set(SIZE)
        with librpmem() as client:
            assert created(client, node, name) == 4
            client.do("close")
        part = node.part(name)
        header = part.read_bytes()[:4096]
        assert part.stat().st_size == SIZE
        assert header_block(header) == Attributes().pack()
        assert int.from_bytes(header[4088:], "little") == header_checksum(header)
        own = Attributes().uuid
        assert header[56:72] == own
        assert header[72:88] == own

    @pytest.mark.parametrize("method", ["general", "apm"])
    @pytest.mark.parametrize(
        "call",
        [
            ("persist", 5000, 20000, 0, 0),
            ("persist", 5000, 20000, 1, 1),
            ("deep", 5000, 20000, 3),
            ("flush", 5000, 20000, 2, 0),
            ("flush", 5000, 20000, 2, 1),
        ],
        ids=["persist", "persist-relaxed", "deep_persist", "flush", "flush-relaxed"],
    )
    def test_bytes_reach_the_part(
        self, librpmem: Starter, node: Node, call: tuple[object, ...], method: str
    ) -> None:
        name = node.make_set(SIZE)
        with method_client(librpmem, method) as client:
            created(client, node, name)
            client.do("fill", 5000, 20000, 11)
            client.do(*call)
            if call[0] == "flush":
                client.do("drain", 2, 0)
            data = node.part(name).read_bytes()
            assert data[5000:25000] == pattern(5000, 20000, 11)
            assert not any(data[4096:5000])
            assert not any(data[25000:])
            assert client.do("compare", 5000, 20000, 1)["same"]
            client.do("close")

    @pytest.mark.parametrize("method", ["general", "apm"])
    def test_ranges_larger_than_a_message(self, librpmem: Starter, node: Node, method: str) -> None:
        name = node.make_set(SIZE)
        length = 3 * MIB + 77
        with method_client(librpmem, method) as client:
            created(client, node, name)
            client.do("fill", 4096, length, 5)
            for flags in (0, 1):
                client.do("fill", 4096, length, 5 + flags)
                client.do("persist", 4096, length, 0, flags)
                assert client.do("compare", 4096, length, 0)["same"]
            client.do("fill", 4096, length, 9)
            client.do("flush", 4096, length, 1, 0)
            client.do("drain", 1, 0)
            assert node.part(name).read_bytes()[4096 : 4096 + length] == pattern(4096, length, 9)
            client.do("close")

    def test_single_bytes_and_odd_places(self, librpmem: Starter, node: Node) -> None:
        name = node.make_set(SIZE)
        expected = bytearray(SIZE - 4096)
        with librpmem() as client:
            created(client, node, name)
            for offset in (4096, 4097, 8191, 8192, 65537, SIZE - 1):
                client.do("set", offset, "e7")
                client.do("persist", offset, 1, 0, 0)
                expected[offset - 4096] = 0xE7
            assert node.part(name).read_bytes()[4096:] == expected
            client.do("close")

    def test_length_zero_does_nothing(self, librpmem: Starter, node: Node) -> None:
        with librpmem() as client:
            created(client, node, node.make_set(SIZE))
            client.do("persist", 4096, 0, 0, 0)
            client.do("deep", 4096, 0, 0)
            client.do("flush", 4096, 0, 0, 0)
            client.do("close")

    @pytest.mark.parametrize("lanes", [1, 8, 16])
    @pytest.mark.parametrize("method", ["general", "apm"])
    def test_threads_on_their_lanes(
        self, librpmem: Starter, node: Node, lanes: int, method: str
    ) -> None:
        with method_client(librpmem, method) as client:
            assert created(client, node, node.make_set(SIZE), lanes=lanes) == lanes
            for what in ("persist", "relaxed", "flush", "flushrelaxed", "deep", "read"):
                answer = client.do("threads", lanes, 10, 4096, what)
                assert answer["done"] == 10 * lanes, what
                assert not answer["differs"]
                slice_ = answer["slice"]
                for lane in range(lanes):
                    assert client.do("compare", 4096 + lane * slice_, 40960, 0)["same"], what
            client.do("close")

    def test_lanes_are_limited_by_the_provider(self, librpmem: Starter, node: Node) -> None:
        with librpmem() as client:
            assert created(client, node, node.make_set(SIZE), lanes=1000) == 16
            client.do("close")

    def test_lanes_are_limited_by_the_environment(self, librpmem: Starter, node: Node) -> None:
        with librpmem(RPMEM_MAX_NLANES="3") as client:
            assert created(client, node, node.make_set(SIZE), lanes=8) == 3
            client.do("close")

    def test_a_small_work_queue_is_enough(self, librpmem: Starter, node: Node) -> None:
        with librpmem(RPMEM_WORK_QUEUE_SIZE="2") as client:
            created(client, node, node.make_set(SIZE))
            client.do("fill", 4096, MIB, 1)
            for _ in range(20):
                client.do("flush", 4096, 4096, 0, 1)
            client.do("flush", 4096, MIB, 0, 1)
            client.do("drain", 0, 0)
            assert client.do("compare", 4096, MIB, 0)["same"]
            client.do("close")

    @pytest.mark.parametrize("threads", [1, 3])
    def test_fewer_workers_than_lanes(self, librpmem: Starter, node: Node, threads: int) -> None:
        with librpmem("--nthreads", str(threads)) as client:
            created(client, node, node.make_set(SIZE), lanes=8)
            assert client.do("threads", 8, 10, 4096, "persist")["done"] == 80
            client.do("close")

    @pytest.mark.own_login
    def test_open_gives_attributes_and_contents(self, librpmem: Starter, node: Node) -> None:
        name = node.make_set(SIZE)
        with librpmem() as client:
            created(client, node, name)
            client.do("fill", 4096, 9000, 3)
            client.do("persist", 4096, 9000, 0, 0)
            client.do("close")
        with librpmem() as client:
            client.do("pool", SIZE)
            answer = client.do("open", node.host, name, 2)
            assert answer["attributes"] == Attributes().hex()
            assert answer["nlanes"] == 2
            assert client.do("read", 4096, 9000, 1)["bytes"] == pattern(4096, 9000, 3).hex()
            assert bytes.fromhex(client.do("read", 0, 8, 0)["bytes"]) == b"PERFTEST"
            client.do("close")
            client.do("openblind", node.host, name, 1)
            client.do("close")

    def test_closing_at_once_keeps_the_pool(self, librpmem: Starter, node: Node) -> None:
        """The daemon may hear of the close before it hears that the last lane is connected."""
        names = [node.make_set(2 * MIB) for _ in range(6)]
        with librpmem() as client:
            for name in names:
                created(client, node, name, size=2 * MIB, lanes=1)
                client.do("close")
                assert node.part(name).exists()

    def test_less_than_the_pool_set_may_be_asked_for(self, librpmem: Starter, node: Node) -> None:
        name = node.make_set(SIZE)
        with librpmem() as client:
            created(client, node, name, size=SIZE // 2)
            client.do("fill", SIZE // 2 - 100, 100, 8)
            client.do("persist", SIZE // 2 - 100, 100, 0, 0)
            client.do("close")
        assert node.part(name).stat().st_size == SIZE
        with librpmem() as client:
            client.do("pool", SIZE // 4)
            client.do("open", node.host, name, 1)
            client.do("close")

    def test_set_attributes(self, librpmem: Starter, node: Node) -> None:
        name = node.make_set(SIZE)
        changed = Attributes(
            signature=b"CHANGED!", major=9, compat=0x10, ro_compat=0x40, uuid=b"\xb2" * 16
        )
        with librpmem() as client:
            created(client, node, name)
            client.do("threads", 4, 5, 4096, "persist")
            client.do("attr", changed.hex())
            client.do("setattr")
            # librpmem's monitor thread may take the answer for a stray message: a race of its
            # own, which spoils the session about one time in five, whichever daemon answers.
            assert client.errno("persist", 4096, 64, 0, 0) in (0, errno.EPROTO)
            client.do("close")
            answer = client.do("open", node.host, name, 1)
            assert answer["attributes"] == changed.hex()
            client.do("close")
        header = node.part(name).read_bytes()[:4096]
        assert header_block(header) == changed.pack()
        assert int.from_bytes(header[4088:], "little") == header_checksum(header)

    def test_several_parts_are_one_pool(self, librpmem: Starter, node: Node) -> None:
        name = node.make_set(4 * MIB, 3 * MIB, 2 * MIB)
        size = 9 * MIB - 2 * 4096
        with librpmem() as client:
            created(client, node, name, size=size)
            client.do("fill", 4096, size - 4096, 2)
            client.do("persist", 4096, size - 4096, 0, 1)
            client.do("close")
        assert node.pool_bytes(name)[4096:] == pattern(4096, size - 4096, 2)
        headers = [node.part(name, i).read_bytes()[:4096] for i in range(3)]
        own = [h[40:56] for h in headers]
        assert own[0] == Attributes().uuid
        assert len(set(own)) == 3
        assert [h[56:72] for h in headers] == [own[2], own[0], own[1]]
        assert [h[72:88] for h in headers] == [own[1], own[2], own[0]]
        with librpmem() as client:
            client.do("pool", size)
            client.do("open", node.host, name, 1)
            client.do("close")

    def test_one_header_for_all_parts(self, librpmem: Starter, node: Node) -> None:
        name = node.make_set(4 * MIB, 2 * MIB, options=["SINGLEHDR"])
        size = 6 * MIB
        attributes = Attributes(incompat=SINGLEHDR).hex()
        with librpmem() as client:
            created(client, node, name, size=size, attributes=attributes)
            client.do("fill", 4096, size - 4096, 2)
            client.do("persist", 4096, size - 4096, 0, 1)
            client.do("close")
            assert client.do("open", node.host, name, 1)["attributes"] == attributes
            client.do("close")
        assert node.pool_bytes(name)[4096:] == pattern(4096, size - 4096, 2)

    @pytest.mark.parametrize("attributes", ["zero", "none"])
    def test_no_headers_at_all(self, librpmem: Starter, node: Node, attributes: str) -> None:
        name = node.make_set(4 * MIB, 2 * MIB, options=["NOHDRS"])
        size = 6 * MIB
        with librpmem() as client:
            created(client, node, name, size=size, attributes=attributes)
            client.do("fill", 0, size, 2)
            client.do("persist", 0, size, 0, 1)
            client.do("close")
            assert client.do("open", node.host, name, 1)["attributes"] == ZERO.hex()
            client.do("close")
        assert node.pool_bytes(name) == pattern(0, size, 2)

    def test_remove_leaves_the_pool_set(self, librpmem: Starter, node: Node) -> None:
        name = node.make_set(4 * MIB, 2 * MIB)
        with librpmem() as client:
            created(client, node, name, size=6 * MIB - 4096)
            client.do("close")
            client.do("remove", node.host, name, 0)
            assert list(node.parts.iterdir()) == []
            assert (node.sets / name).exists()
            assert client.errno("remove", node.host, name, 0) == errno.ENOENT
            client.do("remove", node.host, name, 1)
            client.do("remove", node.host, name, 3)
            assert not (node.sets / name).exists()
            client.do("remove", node.host, name, 1)

    def test_remove_refuses_what_is_open(self, librpmem: Starter, node: Node) -> None:
        name = node.make_set(SIZE)
        with librpmem() as client:
            created(client, node, name)
            assert client.errno("remove", node.host, name, 0) == errno.EWOULDBLOCK
            client.do("close")
            client.do("remove", node.host, name, 2)
        assert list(node.sets.iterdir()) == []

    def test_existing_zeroed_part_is_used(self, librpmem: Starter, node: Node) -> None:
        name = node.make_set(SIZE)
        part = node.part(name)
        part.write_bytes(bytes(4096) + b"kept" + bytes(SIZE - 4100))
        with librpmem() as client:
            created(client, node, name)
            client.do("close")
        assert part.read_bytes()[4096:4100] == b"kept"

    def test_several_pools_at_once(self, librpmem: Starter, node: Node) -> None:
        names = [node.make_set(SIZE) for _ in range(3)]
        with librpmem() as client:
            for index, name in enumerate(names):
                client.do("use", index)
                created(client, node, name, lanes=2)
            for index in range(3):
                client.do("use", index)
                client.do("fill", 4096, 8192, index)
                client.do("persist", 4096, 8192, 0, 0)
            for index, name in enumerate(names):
                data = node.part(name).read_bytes()[4096 : 4096 + 8192]
                assert data == pattern(4096, 8192, index)
                client.do("use", index)
                client.do("close")

    def test_the_library_speaks_version_1_3(self, librpmem: Starter) -> None:
        with librpmem() as client:
            client.do("version", 1, 3)
            assert "mismatch" in client.ask("version", 2, 0)["message"]

    @pytest.mark.parametrize(
        ("option", "force", "method", "flush"),
        [
            ("--persist-general", "0", "General Purpose Server", "pmem_msync"),
            ("--persist-general", "1", "General Purpose Server", "pmem_persist"),
            ("--persist-apm", "0", "General Purpose Server", "pmem_msync"),
            ("--persist-apm", "1", "Appliance", "none"),
        ],
    )
    def test_the_method_is_logged(
        self, librpmem: Starter, node: Node, option: str, force: str, method: str, flush: str
    ) -> None:
        with librpmem(option, variables={"PMEM_IS_PMEM_FORCE": force}) as client:
            created(client, node, node.make_set(SIZE))
            client.do("close")
        assert re.search(
            r"persistency policy:\n"
            rf".*persist method: {method} Persistency Method\n"
            rf".*persist flush: {flush}\n",
            node.log,
        )
