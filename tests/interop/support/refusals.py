"""Refusals: every error status a daemon answers with, as the original librpmem's errno.

The class holds tests; a test module derives from it and names the daemon.
"""

from __future__ import annotations

import errno
import os
import stat
import time

import pytest

from tests.interop.support.attributes import SINGLEHDR, Attributes, header_checksum
from tests.interop.support.calls import SIZE, Starter, created
from tests.interop.support.client import pattern
from tests.interop.support.node import MIB, OURS, Node


class LibrpmemRefusals:
    """Every error status a daemon answers with, as librpmem's errno."""

    daemon: str

    def create_errno(self, librpmem: Starter, node: Node, name: str, **settings: object) -> int:
        with librpmem() as client:
            client.do("pool", settings.get("size", SIZE))
            client.do("attr", settings.get("attributes", Attributes().hex()))
            return client.errno("create", node.host, name, 1)

    def open_errno(self, librpmem: Starter, node: Node, name: str, size: int = SIZE) -> int:
        with librpmem() as client:
            client.do("pool", size)
            return client.errno("open", node.host, name, 1)

    def test_missing_set(self, librpmem: Starter, node: Node) -> None:
        assert self.create_errno(librpmem, node, "none.set") == errno.ENOENT
        assert self.open_errno(librpmem, node, "none.set") == errno.ENOENT

    def test_missing_part_folder(self, librpmem: Starter, node: Node) -> None:
        name = node.write_set(f"PMEMPOOLSET\n{SIZE} {node.folder}/nowhere/part\n")
        assert self.create_errno(librpmem, node, name) == errno.ENOENT

    def test_missing_part(self, librpmem: Starter, node: Node) -> None:
        assert self.open_errno(librpmem, node, node.make_set(SIZE)) == errno.ENOENT

    def test_absolute_name(self, librpmem: Starter, node: Node) -> None:
        name = node.make_set(SIZE)
        assert self.create_errno(librpmem, node, f"{node.sets}/{name}") == errno.EINVAL
        assert self.open_errno(librpmem, node, f"{node.sets}/{name}") == errno.EINVAL

    def test_larger_than_the_set(self, librpmem: Starter, node: Node) -> None:
        name = node.make_set(SIZE)
        assert self.create_errno(librpmem, node, name, size=2 * SIZE) == errno.EFBIG
        assert list(node.parts.iterdir()) == []
        assert self.create_errno(librpmem, node, name) == 0
        assert self.open_errno(librpmem, node, name, 2 * SIZE) == errno.EFBIG

    def test_a_pool_is_there_already(self, librpmem: Starter, node: Node) -> None:
        name = node.make_set(SIZE)
        assert self.create_errno(librpmem, node, name) == 0
        before = node.part(name).read_bytes()
        assert self.create_errno(librpmem, node, name) == errno.EEXIST
        assert node.part(name).read_bytes() == before

    def test_in_use(self, librpmem: Starter, node: Node) -> None:
        name = node.make_set(SIZE)
        with librpmem() as client:
            created(client, node, name)
            client.do("use", 1)
            client.do("pool", SIZE)
            assert client.errno("open", node.host, name, 1) == errno.EBUSY
            client.do("attr", Attributes().hex())
            assert client.errno("create", node.host, name, 1) == errno.EBUSY
            client.do("use", 0)
            client.do("close")
            client.do("open", node.host, name, 1)
            client.do("close")

    @pytest.mark.parametrize(
        "text",
        [
            "garbage\n",
            "PMEMPOOLSET\n",
            "PMEMPOOLSET\n8M relative/part\n",
            "PMEMPOOLSET\neight {parts}/x\n",
            "PMEMPOOLSET\nOPTION WHATEVER\n8M {parts}/x\n",
            "PMEMPOOLSET\n8M {parts}/x\nREPLICA\n8M {parts}/y\n",
            "PMEMPOOLSET\n8M {parts}/x\nREPLICA 127.0.0.1 other.set\n",
            "PMEMPOOLSET\n1M {parts}/x\n",
        ],
        ids=["garbage", "empty", "relative", "size", "option", "replica", "remote", "small"],
    )
    def test_bad_sets(self, librpmem: Starter, node: Node, text: str) -> None:
        name = node.write_set(text.replace("{parts}", str(node.parts)))
        assert self.create_errno(librpmem, node, name, size=MIB) == errno.EINVAL
        # The original looks for the parts before it looks for replicas and at sizes.
        assert self.open_errno(librpmem, node, name, MIB) in (errno.EINVAL, errno.ENOENT)
        assert list(node.parts.iterdir()) == []

    @pytest.mark.parametrize(
        ("options", "attributes"),
        [
            ([], "zero"),
            (["NOHDRS"], Attributes().hex()),
            (["SINGLEHDR"], Attributes().hex()),
            ([], Attributes(incompat=SINGLEHDR).hex()),
        ],
        ids=["headers-but-no-attributes", "nohdrs", "singlehdr-option", "singlehdr-bit"],
    )
    def test_attributes_that_do_not_fit(
        self, librpmem: Starter, node: Node, options: list[str], attributes: str
    ) -> None:
        name = node.make_set(4 * MIB, 4 * MIB, options=options)
        size = 8 * MIB - 8192
        got = self.create_errno(librpmem, node, name, size=size, attributes=attributes)
        assert got == errno.EINVAL
        assert list(node.parts.iterdir()) == []

    def test_existing_part_of_another_size(self, librpmem: Starter, node: Node) -> None:
        name = node.make_set(SIZE)
        node.part(name).write_bytes(bytes(SIZE // 2))
        assert self.create_errno(librpmem, node, name) == errno.EINVAL
        assert node.part(name).stat().st_size == SIZE // 2

    @pytest.mark.parametrize(
        ("part", "offset", "consistent", "expected"),
        [
            (0, 30, False, errno.EREMOTEIO),
            (1, 3000, False, errno.EREMOTEIO),
            (0, 8, True, errno.EINVAL),
            (1, 41, True, errno.EINVAL),
            (1, 60, True, errno.EINVAL),
            (1, 120, True, 0),
            (0, 1000, True, 0),
        ],
        ids=["checksum", "checksum-1", "major", "uuid", "previous", "creation-time", "unused"],
    )
    def test_damaged_header(
        self,
        librpmem: Starter,
        node: Node,
        part: int,
        offset: int,
        consistent: bool,
        expected: int,
    ) -> None:
        name = node.make_set(2 * MIB, 2 * MIB)
        size = 4 * MIB - 4096
        assert self.create_errno(librpmem, node, name, size=size) == 0
        with node.part(name, part).open("r+b") as file:
            header = bytearray(file.read(4096))
            header[offset] ^= 0x10
            if consistent:
                header[4088:] = header_checksum(bytes(header)).to_bytes(8, "little")
            file.seek(0)
            file.write(header)
        if self.daemon == OURS and expected == errno.EREMOTEIO:
            expected = errno.EINVAL  # the pool is at fault, not the daemon: ours says so
        assert self.open_errno(librpmem, node, name, size) == expected

    def test_zeroed_header(self, librpmem: Starter, node: Node) -> None:
        name = node.make_set(SIZE)
        node.part(name).write_bytes(bytes(SIZE))
        assert self.open_errno(librpmem, node, name) == errno.EINVAL

    def test_part_folder_without_permission(self, librpmem: Starter, node: Node) -> None:
        name = node.make_set(SIZE)
        if os.getuid() == 0:
            # Root without its power over permissions is refused like anybody else.
            caps = "-dac_override,-dac_read_search"
            node.daemon = ["setpriv", f"--bounding-set={caps}", *node.daemon]
        node.parts.chmod(stat.S_IRUSR | stat.S_IXUSR)
        try:
            assert self.create_errno(librpmem, node, name) == errno.EACCES
        finally:
            node.parts.chmod(stat.S_IRWXU)
        assert self.create_errno(librpmem, node, name) == 0
        node.part(name).chmod(0)
        assert self.open_errno(librpmem, node, name) == errno.EACCES

    def test_bad_daemon_configuration(self, librpmem: Starter, node: Node) -> None:
        configuration = node.folder / "bad.conf"
        configuration.write_text("no-such-key = 1\n")
        name = node.make_set(SIZE)
        with librpmem("--config", str(configuration)) as client:
            client.do("pool", SIZE)
            client.do("attr", Attributes().hex())
            assert client.errno("create", node.host, name, 1) == errno.EINVAL

    @pytest.mark.own_login
    def test_initiator_killed_after_create(self, librpmem: Starter, node: Node) -> None:
        name = node.make_set(SIZE)
        client = librpmem()
        created(client, node, name)
        client.do("fill", 4096, 4096, 1)
        client.do("persist", 4096, 4096, 0, 0)
        client.kill()
        deadline = time.monotonic() + 60
        while (got := self.open_errno(librpmem, node, name)) == errno.EBUSY:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert got == 0
        assert node.part(name).read_bytes()[4096:8192] == pattern(4096, 4096, 1)
