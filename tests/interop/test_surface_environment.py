"""The environment variables of librpmem's users, as our initiator obeys them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rpmem.base import hardware, logs
from rpmem.base.environment import Environment
from rpmem.errors import ConfigError, PoolSetNotFound, ProviderUnavailable
from rpmem.fabric import providers
from rpmem.session.offer import pmdk_provider
from tests.interop.support.node import ORIGINAL, OURS, Node, daemon_words
from tests.interop.support.originals import Originals
from tests.interop.support.ours import PAGE, SIZE, OurInitiator, random_pool


def choice(**settings: str) -> str:
    """Return the provider that is chosen towards PMDK's rpmemd."""
    return pmdk_provider(("tcp",), Environment.read(settings), "node2")


class TestProviders:
    """RPMEM_ENABLE_SOCKETS and RPMEM_ENABLE_VERBS."""

    @pytest.mark.parametrize(
        ("device", "sockets", "verbs", "expected"),
        [
            (True, None, None, "verbs"),
            (True, "1", None, "verbs"),
            (True, "1", "1", "verbs"),
            (True, "1", "0", "sockets"),
            (True, "0", "0", None),
            (False, None, None, None),
            (False, "1", None, "sockets"),
            (False, "1", "0", "sockets"),
            (False, "0", "1", None),
        ],
    )
    def test_choice(
        self,
        monkeypatch: pytest.MonkeyPatch,
        device: bool,
        sockets: str | None,
        verbs: str | None,
        expected: str | None,
    ) -> None:
        monkeypatch.setattr(hardware, "has_rdma_device", lambda: device)
        given = {"RPMEM_ENABLE_SOCKETS": sockets, "RPMEM_ENABLE_VERBS": verbs}
        settings = {name: value for name, value in given.items() if value is not None}
        if expected is None:
            with pytest.raises(ProviderUnavailable, match="RPMEM_ENABLE_SOCKETS") as caught:
                choice(**settings)
            assert caught.value.errno == 123  # ENOMEDIUM, as librpmem's
        else:
            assert choice(**settings) == expected

    def test_a_provider_that_is_named_wins(self) -> None:
        nothing = Environment.read({"RPMEM_ENABLE_VERBS": "0"})
        for provider in ("sockets", "verbs"):
            assert pmdk_provider((provider,), nothing, "node2") == provider


class TestWorkQueue:
    """RPMEM_WORK_QUEUE_SIZE."""

    daemon = ORIGINAL

    @pytest.mark.parametrize(("given", "used"), [(1, 2), (2, 2), (50, 50), (1 << 40, None)])
    def test_it_is_the_fabrics_queue(self, given: int, used: int | None) -> None:
        module = providers.load()
        try:
            whole = module.Fabric("sockets", "127.0.0.1", 1)
        except ProviderUnavailable as absent:
            pytest.skip(str(absent))
        limit = whole.description["queue_size"]
        whole.close()
        ours = module.Fabric("sockets", "127.0.0.1", 1, queue_size=given)
        assert ours.description["queue_size"] == (limit if used is None else min(used, limit))
        ours.close()

    @pytest.mark.parametrize("size", [None, "2", "7"])
    def test_it_reaches_the_lanes(self, ours: OurInitiator, node: Node, size: str | None) -> None:
        if size is not None:
            ours.set_variable("RPMEM_WORK_QUEUE_SIZE", size)
        buffer = random_pool()
        name = node.make_set(SIZE)
        with ours.create(buffer, name) as replica:
            assert replica._lanes is not None
            assert replica._lanes.fabric.description["queue_size"] == int(size or 50)
            for offset in range(PAGE, PAGE + 40 * 9000, 9000):
                replica.flush(offset, 9000, relaxed=True)
            replica.drain()
        stored = ours.image(name)
        assert stored[PAGE : PAGE + 360_000] == buffer[PAGE : PAGE + 360_000]


class TestPrograms:
    """RPMEM_SSH and RPMEM_CMD."""

    daemon = OURS

    def test_ssh(self, ours: OurInitiator, node: Node, tmp_path: Path) -> None:
        ssh, seen = os.environ["RPMEM_SSH"], tmp_path / "seen"
        script = tmp_path / "my-ssh"
        script.write_text(f'#!/bin/sh\necho "$@" >>{seen}\nexec {ssh} "$@"\n')
        script.chmod(0o755)
        ours.set_variable("RPMEM_SSH", str(script))
        ours.create(bytearray(SIZE), node.make_set(SIZE)).close()
        assert "-T" in seen.read_text()

    def test_commands_take_turns(self, ours: OurInitiator, node: Node) -> None:
        first, second = (
            Node(node.folder / which, node.daemon, node.host) for which in ("one", "two")
        )
        for each in (first, second):
            each.make_set(SIZE, name="a.set")
        ours.set_variable("RPMEM_CMD", f"{first.command()} | {second.command()}")
        for each in (first, second):
            ours.create(bytearray(SIZE), "a.set").close()
            assert each.part("a.set").exists()
        for each in (first, second):
            ours.remove("a.set")
            assert not each.part("a.set").exists()


class TestLanes:
    """RPMEM_MAX_NLANES."""

    @pytest.mark.parametrize("which", [ORIGINAL, OURS])
    def test_most_lanes(
        self, ours: OurInitiator, node: Node, originals: Originals, which: str
    ) -> None:
        node.daemon = daemon_words(which, originals)
        ours.command()
        ours.set_variable("RPMEM_MAX_NLANES", "3")
        with ours.create(bytearray(SIZE), node.make_set(SIZE), nlanes=8) as replica:
            assert replica.nlanes == 3


class TestLog:
    """RPMEM_LOG_LEVEL and RPMEM_LOG_FILE."""

    daemon = ORIGINAL

    @pytest.fixture(autouse=True)
    def _put_back(self):
        yield
        logs.set_up(Environment())

    def test_calls_and_failures(self, ours: OurInitiator, node: Node, tmp_path: Path) -> None:
        ours.set_variable("RPMEM_LOG_LEVEL", "2")
        ours.set_variable("RPMEM_LOG_FILE", f"{tmp_path}/log-")
        name = node.make_set(SIZE)
        ours.create(bytearray(SIZE), name).close()
        with pytest.raises(PoolSetNotFound):
            ours.open(bytearray(SIZE), "none.set")
        ours.remove(name)
        text = (tmp_path / f"log-{os.getpid()}").read_text()
        assert f"create {node.host} {name}" in text
        assert "does not authenticate its lanes" in text
        assert f"ERROR: open {node.host} none.set: {node.host}: rpmemd refused" in text
        assert f"remove {node.host} {name}" in text

    def test_level_1_has_the_failures_only(
        self, ours: OurInitiator, node: Node, tmp_path: Path
    ) -> None:
        ours.set_variable("RPMEM_LOG_LEVEL", "1")
        ours.set_variable("RPMEM_LOG_FILE", str(tmp_path / "log"))
        with pytest.raises(PoolSetNotFound):
            ours.open(bytearray(SIZE), "none.set")
        lines = (tmp_path / "log").read_text().splitlines()
        assert all("WARNING" in line or "ERROR" in line for line in lines)
        assert any("none.set" in line for line in lines)

    def test_a_file_that_cannot_be_written(self, ours: OurInitiator, node: Node) -> None:
        ours.set_variable("RPMEM_LOG_LEVEL", "1")
        ours.set_variable("RPMEM_LOG_FILE", "/nowhere/log")
        with pytest.raises(ConfigError, match="RPMEM_LOG_FILE"):
            ours.create(bytearray(SIZE), "a.set")


class TestForcedPmem:
    """PMEM_IS_PMEM_FORCE, in rpmemd's environment."""

    daemon = OURS

    @pytest.mark.parametrize(("force", "medium"), [("0", "page"), ("1", "pmem")])
    def test_medium(self, ours: OurInitiator, node: Node, force: str, medium: str) -> None:
        ours.command(variables={"PMEM_IS_PMEM_FORCE": force})
        name = node.make_set(SIZE)
        buffer = random_pool()
        with ours.create(buffer, name) as replica:
            if force == "0" and replica.medium == "volatile":
                pytest.skip("the pool set directory is on tmpfs")
            assert replica.medium == medium
            replica.persist(PAGE, 100)
        assert ours.stored(name, PAGE, 100) == buffer[PAGE : PAGE + 100]
