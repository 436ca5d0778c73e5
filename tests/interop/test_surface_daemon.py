"""rpmemd's command line, asked of the original and of ours: the same words, the same exit codes."""

from __future__ import annotations

import errno
import fcntl
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from rpmem.control.events import Refused
from rpmem.control.pmdk_initiator import PmdkInitiatorSession
from tests.interop.support.node import MIB, ORIGINAL, OURS, Node, daemon_words
from tests.interop.support.originals import Originals
from tests.interop.support.out_of_band import Daemon, status_word
from tests.interop.support.raw_target import RawTarget, create_request, start

SIZE = 4 * MIB
Both = list[Node]


@pytest.fixture
def both(tmp_path: Path, originals: Originals) -> Both:
    """The same node twice: the original's and ours."""
    return [Node(tmp_path / which, daemon_words(which, originals)) for which in (ORIGINAL, OURS)]


def run(node: Node, *options: str, plain: bool = False) -> subprocess.CompletedProcess[str]:
    """Run the daemon to its end; `plain`: with these options only."""
    words = [*node.daemon, *options] if plain else node.words(*options)
    return subprocess.run(
        words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
    )


def create(node: Node, name: str) -> None:
    """Make the parts, as a pool without content has them."""
    for line in (node.sets / name).read_text().splitlines():
        if "/" in line:
            Path(line.split()[1]).write_bytes(bytes(SIZE))


def prepare_whole(node: Node) -> str:
    name = node.make_set(SIZE, SIZE, name="p.set")
    create(node, name)
    return name


def prepare_missing_part(node: Node) -> str:
    name = prepare_whole(node)
    node.part(name, 1).unlink()
    return name


def prepare_text(node: Node) -> str:
    return node.write_set("hello, world\n", "p.set")


def prepare_relative_part(node: Node) -> str:
    return node.write_set("PMEMPOOLSET\n4M part\n", "p.set")


REMOVALS: dict[str, tuple[Callable[[Node], str], int]] = {
    "all there": (prepare_whole, 0),
    "missing set": (lambda node: "none.set", errno.ENOENT),
    "missing part": (prepare_missing_part, errno.ENOENT),
    "no parts": (lambda node: node.make_set(SIZE, name="p.set"), errno.ENOENT),
    "absolute name": (lambda node: f"{node.sets}/{prepare_whole(node)}", errno.EBADF),
    "not a pool set": (prepare_text, errno.EINVAL),
    "relative part": (prepare_relative_part, errno.EINVAL),
}


class TestRemove:
    """``--remove``, whose exit code is what rpmem_remove's caller gets as errno."""

    @pytest.mark.parametrize("case", REMOVALS)
    def test_exit_codes(self, both: Both, case: str) -> None:
        prepare, expected = REMOVALS[case]
        for node in both:
            done = run(node, "--remove", prepare(node))
            assert (done.returncode, done.stdout) == (expected, ""), node.daemon

    @pytest.mark.parametrize("case", REMOVALS)
    def test_force_forgives_everything_but_the_name(self, both: Both, case: str) -> None:
        prepare, plain = REMOVALS[case]
        expected = errno.EBADF if plain == errno.EBADF else 0
        for node in both:
            done = run(node, "--remove", prepare(node), "--force")
            assert (done.returncode, done.stdout) == (expected, ""), node.daemon

    @pytest.mark.parametrize("short", [False, True])
    def test_what_is_left(self, both: Both, short: bool) -> None:
        remove, force, pool_set = (
            ("-r", "-f", "-s")
            if short
            else (
                "--remove",
                "--force",
                "--pool-set",
            )
        )
        for node in both:
            name = prepare_whole(node)
            assert run(node, remove, name).returncode == 0
            assert list(node.parts.iterdir()) == []
            assert (node.sets / name).exists()
            name = prepare_missing_part(node)
            assert run(node, remove, name, force).returncode == 0
            assert list(node.parts.iterdir()) == []
            name = prepare_whole(node)
            assert run(node, remove, name, pool_set).returncode == 0
            assert list(node.parts.iterdir()) == []
            assert list(node.sets.iterdir()) == []

    def test_a_pool_in_use(self, both: Both) -> None:
        for node in both:
            name = prepare_whole(node)
            with node.part(name, 1).open("r+b") as part:
                fcntl.flock(part, fcntl.LOCK_EX)
                assert run(node, "--remove", name).returncode == errno.EWOULDBLOCK
                assert node.part(name, 1).exists()

    def test_ours_takes_no_name_that_leaves_the_directory(self, both: Both) -> None:
        _, ours = both
        name = prepare_whole(ours)
        (ours.sets / name).rename(ours.folder / name)
        done = run(ours, "--remove", f"../{name}")
        assert done.returncode == errno.EINVAL
        assert "points outside the pool set directory" in done.stderr
        assert run(ours, "--remove", f"../{name}", "--force").returncode == errno.EINVAL
        assert ours.part(name).exists()


class TestCommandLine:
    """Everything else on the command line."""

    @pytest.mark.parametrize("option", ["-h", "--help", "-V", "--version"])
    def test_help_and_version(self, both: Both, option: str) -> None:
        for node in both:
            done = run(node, option, plain=True)
            assert (done.returncode, done.stdout) == (0, "")
            assert "rpmemd version" in done.stderr

    @pytest.mark.parametrize(
        "options",
        [
            ["--no-such-option"],
            ["-x"],
            ["--remove"],
            ["--log-level", "loud"],
        ],
        ids=" ".join,
    )
    def test_bad_options(self, both: Both, options: list[str]) -> None:
        for node in both:
            done = run(node, *options, plain=True)
            assert done.returncode == 255, node.daemon
            assert done.stdout == ""

    @pytest.mark.parametrize(
        "line",
        [
            "no-such-key = 1",
            "log-level = loud",
            "persist-apm = maybe",
            "persist-apm",
            "log-file =",
            "force = yes",
            "remove = p.set",
        ],
    )
    def test_bad_configuration_files(self, both: Both, line: str) -> None:
        for node in both:
            path = node.folder / "rpmemd.conf"
            path.write_text(f"{line}\n")
            with Daemon([*node.daemon, "--config", str(path)]) as daemon:
                assert daemon.receive_exactly(4) == status_word(errno.EINVAL)
                assert daemon.exit_status() == 1

    def test_a_configuration_file_that_is_not_there(self, both: Both) -> None:
        for node in both:
            with Daemon([*node.daemon, "--config", "/nowhere/rpmemd.conf"]) as daemon:
                word = daemon.receive_exactly(4)
                assert word not in (b"", status_word(0))
                assert daemon.exit_status() == 1

    def test_a_configuration_file_is_obeyed(self, both: Both) -> None:
        for node in both:
            path = node.folder / "rpmemd.conf"
            log = node.folder / "by-file.log"
            path.write_text(
                "# for both\n"
                f"poolset-dir = {node.sets}\n"
                f"log-file={log}   # here\n"
                "\n"
                "log-level =debug\n"
                "persist-apm = yes\n"
                "persist-general = yes\n"
                "use-syslog = no\n"
            )
            words = node.words
            node.words = lambda *options, variables=None, node=node, path=path: [  # type: ignore[method-assign]
                "env",
                "PMEM_IS_PMEM_FORCE=1",
                *node.daemon,
                "--config",
                str(path),
            ]
            with RawTarget(node) as target:
                assert target.ready.steps == ("read-after-write",)
                assert target.served(0)
                target.close()
            node.words = words  # type: ignore[method-assign]
            assert "Appliance Persistency Method" in log.read_text()

    def test_the_command_line_wins(self, both: Both) -> None:
        for node in both:
            path = node.folder / "rpmemd.conf"
            path.write_text("poolset-dir = /nowhere\nlog-level = err\nlog-file = /nowhere/log\n")
            with RawTarget(node, ("--config", str(path), "--persist-general", "-t", "2")) as target:
                assert target.ready.steps == ("send-after-write",)
                target.close()
            assert "persist method: General Purpose Server Persistency Method" in node.log

    def test_log_levels(self, both: Both) -> None:
        """``err`` says nothing of a session that goes well, ``notice`` names the method."""
        for level, named in (("err", False), ("warn", False), ("notice", True), ("info", True)):
            for node in both:
                node.log_file.unlink(missing_ok=True)
                with RawTarget(node, ("--log-level", level)) as target:
                    target.close()
                    target.daemon.exit_status()
                assert ("persist method:" in node.log) == named, (node.daemon, level)
                (node.part(target.name)).unlink()

    def test_use_syslog_writes_no_file(self, both: Both) -> None:
        for node in both:
            with RawTarget(node, ("--use-syslog",)) as target:
                assert target.served(0)
                target.close()
        assert both[1].log == ""


class TestLogs:
    """What a session leaves in the log."""

    def logs(self, both: Both) -> tuple[list[str], list[str]]:
        for node in both:
            with RawTarget(node, ("--log-level", "info")) as target:
                target.close()
                target.daemon.exit_status()
        original, ours = ([line for line in node.log.splitlines() if line] for node in both)
        return original, ours

    def test_requests_in_the_originals_words(self, both: Both) -> None:
        original, ours = self.logs(both)
        begin = original.index("create request:")
        wanted = original[begin : original.index("persistency policy:") + 3]
        assert len(wanted) == 19
        said = [line.partition("] ")[2].partition(": ")[2] for line in ours]
        begin = said.index("create request:")
        # The original prints the signature's neighbour too, where it has no NUL behind it.
        wanted = [line.strip().replace("\3'", "'") for line in wanted]
        assert said[begin : begin + len(wanted)] == wanted

    def test_what_lines_begin_with(self, both: Both) -> None:
        original, ours = self.logs(both)
        assert original[0].startswith("rpmemd version")
        beginning = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d rpmemd\[\d+\] (notice|info): \S")
        assert all(map(beginning.match, ours))


class TestExitStatus:
    """How a session's process ends."""

    def test_closed_in_order(self, both: Both) -> None:
        for node in both:
            with RawTarget(node) as target:
                target.close()
                assert target.daemon.exit_status() == 0, node.daemon

    def test_refused_with_an_answer(self, both: Both) -> None:
        for node in both:
            with start(node) as daemon:
                session = PmdkInitiatorSession(where="the daemon")
                daemon.converse(session)
                session.create(create_request("none.set"))
                assert isinstance(daemon.converse(session), Refused)
                assert daemon.exit_status() == 0, node.daemon

    @pytest.mark.parametrize("when", ["at once", "with lanes"])
    def test_the_initiator_is_gone(self, both: Both, when: str) -> None:
        for node in both:
            if when == "with lanes":
                with RawTarget(node) as target:
                    target.lanes.end()
                    target.daemon.hang_up()
                    assert target.daemon.exit_status() == 1, node.daemon
                continue
            with start(node) as daemon:
                daemon.start()
                daemon.hang_up()
                assert daemon.exit_status() == 1, node.daemon
