"""What libpmemobj programs and pmempool must see of remote replicas, whichever daemon serves.

The class holds tests; a test module derives from it and names the daemon.
"""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.interop.support.attributes import header_block, header_checksum
from tests.interop.support.node import MIB, Node
from tests.interop.support.originals import Originals

LOCAL_PARTS = 2
SIZE = 16 * MIB  # of the local parts together; a pool of libpmemobj needs 8 MiB


class ObjectPool:
    """A local pool set of two parts with one remote replica of two parts on a node."""

    def __init__(
        self, originals: Originals, node: Node, folder: Path, environment: dict[str, str]
    ) -> None:
        self.originals = originals
        self.node = node
        self.environment = environment
        self.folder = folder
        folder.mkdir()
        self.remote = node.make_set(SIZE // 2, SIZE // 2, name="replica.set")
        self.parts = [folder / f"part{index}" for index in range(LOCAL_PARTS)]
        self.alone = self.write("alone.set")
        self.path = self.write("pool.set", f"REPLICA {node.host} {self.remote}")

    def write(self, name: str, *lines: str) -> Path:
        """Write a local pool set file: our two parts and further lines."""
        own = [f"{SIZE // LOCAL_PARTS} {part}" for part in self.parts]
        path = self.folder / name
        path.write_text("\n".join(["PMEMPOOLSET", *own, *lines]) + "\n")
        return path

    def start(self, *words: object) -> subprocess.Popen[str]:
        """Start the libpmemobj program."""
        return subprocess.Popen(
            [str(self.originals.programs / "pmemobj_client"), *map(str, words)],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def ask(self, verb: str, *words: object, pool: Path | None = None) -> dict[str, Any]:
        """Run the libpmemobj program; returns its last answer."""
        process = self.start(verb, pool or self.path, *words)
        out, err = process.communicate(timeout=60)
        assert out, f"{verb}: status {process.returncode}: {err}"
        answer: dict[str, Any] = json.loads(out.splitlines()[-1])
        return answer

    def do(self, verb: str, *words: object, pool: Path | None = None) -> dict[str, Any]:
        """Run the libpmemobj program, which must succeed."""
        answer = self.ask(verb, *words, pool=pool)
        assert answer["ok"], answer
        return answer

    def tool(self, *words: object) -> subprocess.CompletedProcess[str]:
        """Run pmempool with this pool's environment."""
        return self.originals.run_pmempool(*map(str, words), environment=self.environment)

    def tool_does(self, *words: object) -> str:
        """Run pmempool, which must succeed; returns its output."""
        result = self.tool(*words)
        assert result.returncode == 0, f"{words}: {result.stdout}{result.stderr}"
        return result.stdout

    def restore_from_replica(self) -> dict[str, Any]:
        """Lose every local part, fetch the pool from its replica, check it."""
        for part in self.parts:
            part.unlink()
        self.tool_does("sync", self.path)
        return self.do("check")

    def remote_part(self, index: int = 0) -> Path:
        """Return a part of the replica."""
        return self.node.part(self.remote, index)


class ObjectPrograms:
    """libpmemobj programs and the pool tool."""

    daemon: str

    @pytest.mark.own_login
    def test_create_fills_both_sides(self, pool: ObjectPool) -> None:
        local = pool.parts[0].read_bytes()[:4096]
        remote = pool.remote_part().read_bytes()[:4096]
        assert remote[:8] == b"PMEMOBJ\0"
        assert header_block(remote)[:40] == header_block(local)[:40]
        assert remote[88:104] == remote[104:120] == local[40:56]
        assert local[88:104] == local[104:120] == remote[40:56]
        for index in range(2):
            header = pool.remote_part(index).read_bytes()[:4096]
            assert int.from_bytes(header[4088:], "little") == header_checksum(header)

    def test_transactions_are_in_the_replica(self, pool: ObjectPool) -> None:
        pool.do("append", 6)
        pool.do("touch", 5)
        pool.do("append", 2)
        seen = pool.do("check")
        assert (seen["count"], seen["consistent"], seen["scratch"]) == (8, True, 5)
        assert pool.restore_from_replica() == seen

    def test_killed_in_the_middle_of_a_transaction(self, pool: ObjectPool) -> None:
        process = pool.start("die", pool.path, 3)
        process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL
        seen = self.recovered(pool)
        assert (seen["count"], seen["consistent"]) == (3, True)
        pool.do("append", 1)
        assert pool.restore_from_replica()["count"] == 4

    def test_killed_at_any_time(self, pool: ObjectPool) -> None:
        committed = 0
        for round_ in range(3):
            process = pool.start("run", pool.path)
            assert process.stdout is not None
            last = 0
            while last < 2 + 2 * round_:
                last = json.loads(process.stdout.readline())["committed"]
            process.kill()
            process.communicate(timeout=60)
            seen = self.recovered(pool)
            assert seen["consistent"]
            assert seen["count"] >= committed + last
            committed = seen["count"]
        restored = pool.restore_from_replica()
        assert restored["consistent"]
        assert restored["count"] == committed

    def recovered(self, pool: ObjectPool) -> dict[str, Any]:
        """Check the pool as soon as the daemon of the dead program has let go of it."""
        for _ in range(100):
            answer = pool.ask("check")
            if answer["ok"] or answer["errno"] != 16:
                break
        assert answer["ok"], answer
        return answer

    def test_recovery_from_the_replica_alone(self, pool: ObjectPool) -> None:
        process = pool.start("die", pool.path, 2)
        process.communicate(timeout=60)
        assert self.recovered(pool)["count"] == 2
        restored = pool.restore_from_replica()
        assert (restored["count"], restored["consistent"]) == (2, True)

    def test_info_names_the_replica(self, pool: ObjectPool) -> None:
        text = pool.tool_does("info", pool.path)
        assert "Replica 1 - remote:" in text
        assert f"node                     : {pool.node.host}" in text
        assert f"pool set                 : {pool.remote}" in text

    def test_info_reads_the_replicas_parts(self, pool: ObjectPool) -> None:
        for index in range(2):
            fields = pool.originals.pool_info(pool.remote_part(index))
            assert fields["Signature"].startswith("PMEMOBJ")
            assert fields["Checksum"].endswith("[OK]")

    @pytest.mark.parametrize(
        "harm", ["local part", "remote part", "second remote part", "remote header", "checksum"]
    )
    def test_sync_repairs(self, pool: ObjectPool, harm: str) -> None:
        pool.do("append", 2)
        if harm == "local part":
            pool.parts[1].unlink()
        elif harm == "remote part":
            pool.remote_part().unlink()
        elif harm == "second remote part":
            pool.remote_part(1).unlink()
        else:
            with pool.remote_part().open("r+b") as part:
                part.write(bytes(4096) if harm == "remote header" else b"DAMAGED!")
        assert not pool.ask("check")["ok"]
        pool.tool_does("sync", pool.path)
        assert pool.do("check")["count"] == 2
        assert pool.restore_from_replica()["consistent"]

    def test_sync_has_nothing_to_do(self, pool: ObjectPool) -> None:
        pool.do("append", 2)
        pool.tool_does("sync", pool.path)
        pool.tool_does("sync", "--dry-run", pool.path)
        assert pool.do("check")["count"] == 2

    def test_transform_drops_and_adds_the_replica(self, pool: ObjectPool) -> None:
        pool.do("append", 2)
        pool.tool_does("transform", pool.path, pool.alone)
        assert not pool.remote_part().exists()
        assert pool.do("check", pool=pool.alone)["count"] == 2
        pool.tool_does("transform", pool.alone, pool.path)
        assert pool.remote_part().exists()
        assert pool.do("check")["count"] == 2
        assert pool.restore_from_replica()["count"] == 2

    def test_rm_removes_both_sides(self, pool: ObjectPool) -> None:
        pool.tool_does("rm", pool.path)
        assert not any(part.exists() for part in pool.parts)
        assert list(pool.node.parts.iterdir()) == []
        assert (pool.node.sets / pool.remote).exists()
        assert pool.tool("rm", pool.path).returncode == 1
        pool.tool_does("rm", "--force", pool.path)

    @pytest.mark.parametrize("option", ["--local", "--remote", "--all"])
    def test_rm_of_pool_set_files_too(self, pool: ObjectPool, option: str) -> None:
        pool.tool_does("rm", option, pool.path)
        local = {pool.alone} if option in ("--local", "--all") else {pool.alone, pool.path}
        assert set(pool.folder.iterdir()) == local
        assert list(pool.node.parts.iterdir()) == []
        gone = option in ("--remote", "--all")
        assert (pool.node.sets / pool.remote).exists() != gone

    def test_feature_refuses_remote_replicas(self, pool: ObjectPool) -> None:
        for action in ("--query", "--enable", "--disable"):
            assert pool.tool("feature", action, "SHUTDOWN_STATE", pool.path).returncode == 1
        assert pool.do("check")["consistent"]

    def test_feature_of_the_replica_itself(self, pool: ObjectPool) -> None:
        remote = pool.node.sets / pool.remote
        assert pool.tool_does("feature", "--query", "CKSUM_2K", remote) == "1"
        assert pool.tool_does("feature", "--query", "SINGLEHDR", remote) == "0"

    def test_a_pool_in_use_is_refused(self, pool: ObjectPool) -> None:
        process = pool.start("run", pool.path)
        assert process.stdout is not None
        process.stdout.readline()
        try:
            assert not pool.ask("check")["ok"]
            assert pool.tool("rm", pool.path).returncode == 1
            assert pool.remote_part().exists()
        finally:
            process.kill()
            process.communicate()
