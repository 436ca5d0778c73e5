"""Our initiator against the original rpmemd, over ssh and the ``sockets`` provider."""

from __future__ import annotations

import errno
import logging
import os
import random
import re
import signal
import stat
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rpmem import PoolAttributes, Replica
from rpmem.base.values import replace
from rpmem.errors import (
    AttributesRefused,
    ClosedError,
    DaemonMissing,
    DeadlineExceeded,
    LaneRefused,
    LaunchFailed,
    PoolSetBusy,
    PoolSetDenied,
    PoolSetExists,
    PoolSetMalformed,
    PoolSetNameRefused,
    PoolSetNotFound,
    PoolSetTooSmall,
    ProviderUnavailable,
    RangeError,
    RemoteError,
    ReplicaLost,
    RpmemError,
    VersionMismatch,
)
from rpmem.files.header import INCOMPAT_SINGLEHDR
from tests.interop.support.attributes import header_block, header_checksum
from tests.interop.support.node import MIB, Node
from tests.interop.support.originals import Originals
from tests.interop.support.ours import (
    ATTRIBUTES,
    METHODS,
    PAGE,
    SIZE,
    OurInitiator,
    flushed_ranges,
    random_pool,
)
from tests.support.processes import stop
from tests.support.traces import Traces

INLINE = 8192  # what a message of PMDK's carries


class TestLifeCycle:
    @pytest.mark.own_login
    @pytest.mark.parametrize("launcher", ["openssh", "paramiko"])
    def test_create_persist_close_open_read_remove(
        self, ours: OurInitiator, node: Node, launcher: str
    ) -> None:
        ours.options["launcher"] = launcher
        name = node.make_set(SIZE)
        buffer = random_pool()
        with ours.create(buffer, name) as replica:
            assert (replica.nlanes, replica.provider) == (4, "sockets")
            assert replica.step == "send-after-write"
            assert replica.pool_size == SIZE
            assert replica.peer is None
            replica.persist(PAGE, SIZE - PAGE)
        assert ours.image(name)[PAGE:] == buffer[PAGE:]
        header = ours.image(name)[:PAGE]
        assert header_block(header) == ATTRIBUTES.pack()
        assert int.from_bytes(header[4088:], "little") == header_checksum(header)
        with ours.open(bytearray(SIZE), name, nlanes=2) as replica:
            assert replica.attributes == ATTRIBUTES
            assert replica.nlanes == 2
            whole = bytearray(SIZE)
            replica.read(whole, 0)
            assert whole == ours.image(name)
        ours.remove(name)
        assert list(node.parts.iterdir()) == []
        assert (node.sets / name).exists()

    def test_the_log_warns_that_lanes_are_not_authenticated(
        self, ours: OurInitiator, node: Node, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.WARNING, logger="rpmem"):
            ours.create(bytearray(SIZE), node.make_set(SIZE)).close()
        (warning,) = [record for record in caplog.records if record.name == "rpmem"]
        assert warning.levelno == logging.WARNING
        assert "does not authenticate its lanes" in warning.getMessage()
        assert node.host in warning.getMessage()

    def test_what_is_not_known_is_not_claimed(self, ours: OurInitiator, node: Node) -> None:
        with ours.create(bytearray(SIZE), node.make_set(SIZE)) as replica:
            assert replica.step == "send-after-write"
            assert replica.medium == "unknown"
            assert replica.level == "unknown"

    def test_every_pool_shape(self, ours: OurInitiator, node: Node) -> None:
        single = replace(ATTRIBUTES, incompat=INCOMPAT_SINGLEHDR)
        for options, size, attributes in (
            ([], 7 * MIB - 2 * PAGE, ATTRIBUTES),
            (["SINGLEHDR"], 7 * MIB, single),
            (["NOHDRS"], 7 * MIB, None),
        ):
            name = node.make_set(3 * MIB, 2 * MIB, 2 * MIB, options=options)
            begin = PAGE if attributes else 0
            buffer = random_pool(size, seed=len(options))
            with ours.create(buffer, name, attributes=attributes) as replica:
                replica.persist(begin, size - begin, relaxed=True)
                for edge in (3 * MIB, 5 * MIB - PAGE):
                    buffer[edge - 50 : edge + 50] = bytes(range(100))
                    replica.persist(edge - 50, 100)
            assert ours.image(name)[begin:] == buffer[begin:]
            with ours.open(bytearray(size), name) as replica:
                assert replica.attributes == attributes

    def test_set_attributes(self, ours: OurInitiator, node: Node) -> None:
        name = node.make_set(2 * MIB, 2 * MIB)
        size = 4 * MIB - PAGE
        changed = replace(ATTRIBUTES, signature=b"CHANGED!", major=9, uuid=b"w" * 16)
        buffer = random_pool(size)
        with ours.create(buffer, name) as replica:
            replica.persist(PAGE, 100)
            for attributes in (replace(changed, major=8), changed):
                replica.set_attributes(attributes)
                assert replica.attributes == attributes
                assert header_block(ours.image(name)[:PAGE]) == attributes.pack()
            replica.persist(PAGE, 200)
        with ours.open(bytearray(size), name) as replica:
            assert replica.attributes == changed

    def test_attributes_that_would_crash_the_daemon_are_not_sent(
        self, ours: OurInitiator, node: Node
    ) -> None:
        buffer = random_pool()
        with ours.create(buffer, node.make_set(SIZE)) as replica:
            with pytest.raises(AttributesRefused):
                replica.set_attributes(PoolAttributes())
            replica.persist(PAGE, 100)
            assert replica.attributes == ATTRIBUTES

    def test_close_with_remove(self, ours: OurInitiator, node: Node) -> None:
        name = node.make_set(2 * MIB, 2 * MIB)
        size = 4 * MIB - PAGE
        ours.create(bytearray(size), name).close(remove=True)
        assert list(node.parts.iterdir()) == []
        ours.create(bytearray(size), name).close()
        ours.open(bytearray(size), name).close(remove=True)
        assert len(list(node.parts.iterdir())) == 2, "only who created a pool removes it"

    def test_close_at_once_keeps_the_pool(self, ours: OurInitiator, node: Node) -> None:
        for _ in range(4):
            name = node.make_set(2 * MIB)
            ours.create(bytearray(2 * MIB), name, nlanes=1).close()
            assert node.part(name).exists()

    def test_less_than_the_pool_set_may_be_asked_for(self, ours: OurInitiator, node: Node) -> None:
        name = node.make_set(SIZE)
        buffer = random_pool(3 * PAGE)
        with ours.create(buffer, name) as replica:
            replica.persist(PAGE, 2 * PAGE)
            with pytest.raises(RangeError):
                replica.persist(2 * PAGE, PAGE + 1)
        assert ours.stored(name, PAGE, 2 * PAGE) == buffer[PAGE:]
        assert node.part(name).stat().st_size == SIZE

    def test_every_session_takes_one_command(self, ours: OurInitiator, node: Node) -> None:
        """Falling back to PMDK's protocol starts the same command again, not the next."""
        logs = [node.folder / f"{number}.log" for number in range(2)]
        commands = [node.command("--log-file", str(log)) for log in logs]
        ours.set_variable("RPMEM_CMD", "|".join(commands))
        names = [node.make_set(2 * MIB) for _ in range(2)]
        for name, log in zip(names, logs, strict=True):
            ours.create(bytearray(2 * MIB), name).close()
            assert name in log.read_text()
        assert names[1] not in logs[0].read_text()

    def test_sessions_leave_nothing_behind(self, ours: OurInitiator, node: Node) -> None:
        name = node.make_set(SIZE)
        ours.create(bytearray(SIZE), name).close()
        before = Traces.now()
        with ours.open(bytearray(SIZE), name) as replica:
            replica.persist(PAGE, 64)
        with pytest.raises(PoolSetNotFound):
            ours.open(bytearray(SIZE), "missing.set")
        assert not before.more()


class TestProtocol:
    """Which protocol is spoken, and how often rpmemd is started for it."""

    def starts(self, ours: OurInitiator, node: Node) -> Path:
        count = node.folder / "starts"
        ours.wrap("sh", "-c", f'echo >>{count}; exec "$@"', "sh")
        return count

    def test_pmdk_at_once(self, ours: OurInitiator, node: Node) -> None:
        count = self.starts(ours, node)
        with ours.create(bytearray(SIZE), node.make_set(SIZE), protocol="pmdk") as replica:
            replica.persist(PAGE, 64)
        assert len(count.read_text()) == 1

    def test_found_out(self, ours: OurInitiator, node: Node) -> None:
        count = self.starts(ours, node)
        with ours.create(bytearray(SIZE), node.make_set(SIZE)) as replica:
            replica.persist(PAGE, 64)
        assert len(count.read_text()) == 2

    def test_by_the_variable(self, ours: OurInitiator, node: Node) -> None:
        count = self.starts(ours, node)
        ours.set_variable("RPMEM_PROTOCOL", "pmdk")
        with ours.create(bytearray(SIZE), node.make_set(SIZE)) as replica:
            replica.persist(PAGE, 64)
        assert len(count.read_text()) == 1

    def test_never(self, ours: OurInitiator, node: Node) -> None:
        name = node.make_set(SIZE)
        with pytest.raises(VersionMismatch, match="PMDK"):
            ours.create(bytearray(SIZE), name, protocol="native")
        assert list(node.parts.iterdir()) == []


class TestBytes:
    @pytest.mark.parametrize("method", METHODS)
    def test_any_range_arrives_exactly(self, ours: OurInitiator, node: Node, method: str) -> None:
        ours.method(method)
        name = node.make_set(SIZE)
        chance = random.Random(method)
        buffer = bytearray(SIZE)
        lengths = [1, 7, 8, 9, 64, 4095, 4097, INLINE - 24, INLINE - 1, INLINE, INLINE + 1]
        lengths += [2 * INLINE, 2 * INLINE + 1, 5 * INLINE + 3, 1 << 20, SIZE - PAGE]
        with ours.create(buffer, name, nlanes=2) as replica:
            assert replica.step == ("read-after-write" if method == "apm" else "send-after-write")
            calls = {
                "persist": replica.persist,
                "relaxed": lambda *r: replica.persist(*r, relaxed=True),
                "flush": lambda *r: (replica.flush(*r, lane=1), replica.drain(lane=1)),
                "flush relaxed": lambda *r: (replica.flush(*r, relaxed=True), replica.drain()),
                "deep": replica.deep_persist,
                "deep on lane 1": lambda *r: replica.deep_persist(*r, lane=1),
            }
            for length in lengths:
                for what, call in calls.items():
                    offset = chance.choice([PAGE, SIZE - length, chance.randrange(PAGE, SIZE)])
                    offset = min(offset, SIZE - length)
                    buffer[offset : offset + length] = chance.randbytes(length)
                    call(offset, length)
                    stored = ours.stored(name, offset, length)
                    assert stored == buffer[offset : offset + length], (what, offset, length)
            got = bytearray(SIZE - PAGE)
            replica.read(got, PAGE)
            assert got == buffer[PAGE:]
            for offset, length in ((0, 8), (1, 3), (PAGE - 1, 2), (SIZE - 5, 5), (SIZE, 0)):
                piece = bytearray(length)
                replica.read(piece, offset, lane=1)
                assert piece == ours.stored(name, offset, length)
        assert ours.image(name)[PAGE:] == buffer[PAGE:]

    @pytest.mark.parametrize("method", METHODS)
    @pytest.mark.parametrize("relaxed", [False, True])
    def test_scattered_ranges(
        self, ours: OurInitiator, node: Node, method: str, relaxed: bool
    ) -> None:
        ours.method(method)
        name = node.make_set(SIZE)
        chance = random.Random(7)
        buffer = random_pool()
        expected = bytearray(SIZE)
        table = []
        for _ in range(150):
            offset = chance.randrange(PAGE, SIZE - 1)
            length = min(SIZE - offset, int(2 ** chance.uniform(0, 15)))
            table.append((offset, length))
            expected[offset : offset + length] = buffer[offset : offset + length]
        with ours.create(buffer, name) as replica:
            replica.persist_many(table, relaxed=relaxed)
            replica.persist_many([])
            with pytest.raises(RangeError, match="outside the pool"):
                replica.persist_many([(PAGE, 8), (SIZE, 8)])
        assert ours.image(name)[PAGE:] == expected[PAGE:]

    @pytest.mark.parametrize("method", ["general", "apm"])
    @pytest.mark.parametrize("lanes", [1, 4, 16])
    def test_threads_on_lanes(
        self, ours: OurInitiator, node: Node, method: str, lanes: int
    ) -> None:
        ours.method(method)
        name = node.make_set(SIZE)
        buffer = random_pool()
        slice_ = (SIZE - PAGE) // 16
        with ours.create(buffer, name, nlanes=lanes) as replica:
            assert replica.nlanes == lanes

            def work(number: int) -> None:
                chance = random.Random(number)
                begin = PAGE + number * slice_
                lane = number if lanes == 16 else None
                for _ in range(6):
                    length = chance.randint(1, 3 * INLINE)
                    offset = begin + chance.randrange(slice_ - length)
                    relaxed = chance.random() < 0.5
                    if chance.random() < 0.3:
                        replica.flush(offset, length, lane=lane, relaxed=relaxed)
                        replica.drain(lane=lane)
                    else:
                        replica.persist(offset, length, lane=lane, relaxed=relaxed)
                    got = bytearray(length)
                    replica.read(got, offset, lane=lane)
                    assert got == buffer[offset : offset + length]
                replica.deep_persist(begin, slice_, lane=lane)

            with ThreadPoolExecutor(16) as threads:
                list(threads.map(work, range(16)))
        end = PAGE + 16 * slice_
        assert ours.image(name)[PAGE:end] == buffer[PAGE:end]

    def test_no_more_lanes_than_the_provider_has(self, ours: OurInitiator, node: Node) -> None:
        name = node.make_set(SIZE)
        with ours.create(bytearray(SIZE), name, nlanes=64) as replica:
            assert replica.nlanes == 16
            replica.persist(PAGE, 64, lane=15)
            with pytest.raises(LaneRefused):
                replica.persist(PAGE, 64, lane=16)
        ours.set_variable("RPMEM_MAX_NLANES", "3")
        with ours.open(bytearray(SIZE), name, nlanes=8) as replica:
            assert replica.nlanes == 3

    def test_fewer_workers_than_lanes(self, ours: OurInitiator, node: Node) -> None:
        ours.command("--nthreads", "2")
        name = node.make_set(SIZE)
        buffer = random_pool()
        with ours.create(buffer, name, nlanes=8) as replica, ThreadPoolExecutor(8) as threads:
            calls = [threads.submit(replica.persist, PAGE + n * 9000, 9000, n) for n in range(8)]
            for call in calls:
                call.result()
        assert ours.stored(name, PAGE, 72000) == buffer[PAGE : PAGE + 72000]

    def test_what_is_acknowledged_has_been_flushed(
        self, ours: OurInitiator, node: Node, originals: Originals
    ) -> None:
        """Every way of persisting has the daemon msync the whole range before it answers."""
        record = node.folder / "msync"
        library = originals.programs / "record_msync.so"
        ours.command(variables={"LD_PRELOAD": str(library), "MSYNC_RECORD": str(record)})
        with ours.create(random_pool(), node.make_set(SIZE)) as replica:
            base = ours.remote_address()
            flush = lambda *r, **k: (replica.flush(*r, **k), replica.drain())  # noqa: E731
            many = lambda o, n, **k: replica.persist_many([(o, 9), (o + 9, n - 9)], **k)  # noqa: E731
            calls = [replica.persist, flush, many]
            for length in (100, INLINE, 100_001):
                for call, settings in [
                    *((call, {"relaxed": relaxed}) for call in calls for relaxed in (False, True)),
                    (replica.deep_persist, {}),
                ]:
                    record.unlink(missing_ok=True)
                    call(5000, length, **settings)
                    pages = set(range(PAGE, 5000 + length, PAGE))
                    for begin, end in flushed_ranges(record, base):
                        pages -= set(range(begin & -PAGE, end, PAGE))
                    assert not pages, (call, settings, length)

    @pytest.mark.parametrize(
        ("method", "policy", "flush"),
        [
            ("general", "General Purpose Server", "pmem_msync"),
            ("general-pmem", "General Purpose Server", "pmem_persist"),
            ("apm", "Appliance", "none"),
        ],
    )
    def test_the_daemon_logs_its_method(
        self, ours: OurInitiator, node: Node, method: str, policy: str, flush: str
    ) -> None:
        ours.method(method)
        ours.create(bytearray(SIZE), node.make_set(SIZE)).close()
        assert re.search(
            rf"persist method: {policy} Persistency Method\n.*persist flush: {flush}\n", node.log
        )

    def test_appliance_without_pmem_falls_back(self, ours: OurInitiator, node: Node) -> None:
        ours.command("--persist-apm")
        with ours.create(bytearray(SIZE), node.make_set(SIZE)) as replica:
            assert replica.step == "send-after-write"

    def test_ranges_that_are_refused_here(self, ours: OurInitiator, node: Node) -> None:
        name = node.make_set(SIZE)
        with ours.create(random_pool(), name) as replica:
            for call in (replica.persist, replica.flush, replica.deep_persist):
                for range_ in (
                    (0, 8),
                    (PAGE - 1, 1),
                    (SIZE - 7, 8),
                    (SIZE, 1),
                    (PAGE, (1 << 64) - 1),
                ):
                    with pytest.raises(RangeError):
                        call(*range_)
                call(PAGE, 0)
            with pytest.raises(RangeError):
                replica.read(bytearray(16), SIZE - 15)
            replica.persist(PAGE, 8)


class TestRefusals:
    """Every status the original can be brought to answer with."""

    @staticmethod
    def check(caught: pytest.ExceptionInfo[RpmemError], number: int, node: Node) -> None:
        error = caught.value
        assert error.errno == number
        assert node.host.partition(":")[0] in str(error)

    def refused(
        self,
        ours: OurInitiator,
        call: str,
        name: str,
        kind: type[RpmemError],
        number: int,
        size: int = SIZE,
        **more: object,
    ) -> None:
        with pytest.raises(kind) as caught:
            getattr(ours, call)(bytearray(size), name, **more)
        assert type(caught.value) is kind
        self.check(caught, number, ours.node)

    def test_not_there(self, ours: OurInitiator, node: Node) -> None:
        self.refused(ours, "create", "none.set", PoolSetNotFound, errno.ENOENT)
        self.refused(ours, "open", "none.set", PoolSetNotFound, errno.ENOENT)
        self.refused(ours, "open", node.make_set(SIZE), PoolSetNotFound, errno.ENOENT)

    def test_parts_cannot_be_left_to_the_original(self, ours: OurInitiator) -> None:
        with pytest.raises(PoolSetNotFound, match="pool set file") as caught:
            ours.create(bytearray(SIZE), "none.set", parts=2)
        assert caught.value.errno == errno.ENOENT

    def test_absolute_name(self, ours: OurInitiator, node: Node) -> None:
        name = f"{node.sets}/{node.make_set(SIZE)}"
        self.refused(ours, "create", name, PoolSetNameRefused, errno.EINVAL)
        self.refused(ours, "open", name, PoolSetNameRefused, errno.EINVAL)

    def test_larger_than_the_set(self, ours: OurInitiator, node: Node) -> None:
        name = node.make_set(SIZE)
        self.refused(ours, "create", name, PoolSetTooSmall, errno.EFBIG, size=2 * SIZE)
        assert list(node.parts.iterdir()) == []
        ours.create(bytearray(SIZE), name).close()
        self.refused(ours, "open", name, PoolSetTooSmall, errno.EFBIG, size=2 * SIZE)

    def test_provider(self, ours: OurInitiator, node: Node) -> None:
        if os.path.isdir("/sys/class/infiniband") and os.listdir("/sys/class/infiniband"):
            pytest.skip("this machine has an RDMA device, and verbs works")
        name = node.make_set(SIZE)
        with pytest.raises(ProviderUnavailable):
            ours.create(bytearray(SIZE), name, provider="verbs")
        ours.set_variable("RPMEM_ENABLE_SOCKETS", "0")
        with pytest.raises(ProviderUnavailable, match="RPMEM_ENABLE_SOCKETS"):
            ours.create(bytearray(SIZE), name)
        assert list(node.parts.iterdir()) == []

    def test_steps_that_only_ours_knows(self, ours: OurInitiator, node: Node) -> None:
        with pytest.raises(VersionMismatch, match="commit"):
            ours.create(bytearray(SIZE), node.make_set(SIZE), step="commit")
        assert list(node.parts.iterdir()) == []

    def test_in_use(self, ours: OurInitiator, node: Node) -> None:
        name = node.make_set(SIZE)
        with ours.create(bytearray(SIZE), name):
            self.refused(ours, "open", name, PoolSetBusy, errno.EBUSY)
            self.refused(ours, "create", name, PoolSetBusy, errno.EBUSY)
        ours.open(bytearray(SIZE), name).close()

    def test_a_pool_is_there_already(self, ours: OurInitiator, node: Node) -> None:
        name = node.make_set(SIZE)
        ours.create(bytearray(SIZE), name).close()
        before = ours.image(name)
        self.refused(ours, "create", name, PoolSetExists, errno.EEXIST)
        assert ours.image(name) == before

    def test_no_access(self, ours: OurInitiator, node: Node) -> None:
        name = node.make_set(SIZE)
        if os.getuid() == 0:
            ours.wrap("setpriv", "--bounding-set=-dac_override,-dac_read_search")
        node.parts.chmod(stat.S_IRUSR | stat.S_IXUSR)
        try:
            self.refused(ours, "create", name, PoolSetDenied, errno.EACCES)
        finally:
            node.parts.chmod(stat.S_IRWXU)

    @pytest.mark.parametrize(
        "text",
        ["garbage\n", "PMEMPOOLSET\n4M relative\n", "PMEMPOOLSET\n4M {0}/x\nREPLICA\n4M {0}/y\n"],
        ids=["garbage", "relative", "replica"],
    )
    def test_bad_sets(self, ours: OurInitiator, node: Node, text: str) -> None:
        name = node.write_set(text.format(node.parts))
        self.refused(ours, "create", name, PoolSetMalformed, errno.EINVAL)

    @pytest.mark.parametrize(
        ("options", "attributes"),
        [([], None), (["NOHDRS"], ATTRIBUTES), (["SINGLEHDR"], ATTRIBUTES)],
        ids=["no-attributes", "nohdrs", "singlehdr"],
    )
    def test_attributes_that_do_not_fit(
        self, ours: OurInitiator, node: Node, options: list[str], attributes: PoolAttributes | None
    ) -> None:
        name = node.make_set(SIZE, options=options)
        self.refused(ours, "create", name, PoolSetMalformed, errno.EINVAL, attributes=attributes)
        assert list(node.parts.iterdir()) == []

    def test_attributes_for_a_pool_without_headers(self, ours: OurInitiator, node: Node) -> None:
        name = node.make_set(SIZE, options=["NOHDRS"])
        with ours.create(random_pool(), name, attributes=None) as replica:
            with pytest.raises(AttributesRefused) as caught:
                replica.set_attributes(ATTRIBUTES)
            self.check(caught, errno.EINVAL, node)
            assert replica.attributes is None
            replica.persist(0, 100)

    def test_a_damaged_header_is_fatal_to_the_original(
        self, ours: OurInitiator, node: Node
    ) -> None:
        name = node.make_set(SIZE)
        ours.create(bytearray(SIZE), name).close()
        with node.part(name).open("r+b") as part:
            part.write(b"DAMAGED!")
        self.refused(ours, "open", name, RemoteError, errno.EREMOTEIO)

    def test_bad_configuration(self, ours: OurInitiator, node: Node) -> None:
        configuration = node.folder / "bad.conf"
        configuration.write_text("no-such-key = 1\n")
        ours.command("--config", str(configuration))
        self.refused(ours, "create", node.make_set(SIZE), LaunchFailed, errno.EINVAL)

    def test_no_daemon(self, ours: OurInitiator, node: Node) -> None:
        ours.set_variable("RPMEM_CMD", "/nowhere/rpmemd")
        with pytest.raises(DaemonMissing, match="/nowhere/rpmemd"):
            ours.create(bytearray(SIZE), node.make_set(SIZE))
        with pytest.raises(DaemonMissing, match="/nowhere/rpmemd"):
            ours.remove("a.set")

    @pytest.mark.parametrize("call", ["create", "open"])
    def test_a_failed_call_can_be_repeated(self, ours: OurInitiator, node: Node, call: str) -> None:
        buffer = random_pool()
        with pytest.raises(PoolSetNotFound):
            getattr(ours, call)(buffer, "late.set")
        node.make_set(SIZE, name="late.set")
        with ours.create(buffer, "late.set") as replica:
            replica.persist(PAGE, 100)


class TestRemove:
    @pytest.mark.parametrize("force", [False, True])
    @pytest.mark.parametrize("pool_set", [False, True])
    def test_variants(self, ours: OurInitiator, node: Node, force: bool, pool_set: bool) -> None:
        name = node.make_set(2 * MIB, 2 * MIB, name="with blank.set")
        ours.create(bytearray(4 * MIB - PAGE), name).close()
        ours.remove(name, force=force, pool_set=pool_set)
        assert list(node.parts.iterdir()) == []
        assert (node.sets / name).exists() != pool_set
        if force:
            ours.remove(name, force=force, pool_set=pool_set)
        else:
            with pytest.raises(PoolSetNotFound) as caught:
                ours.remove(name, pool_set=pool_set)
            assert caught.value.errno == errno.ENOENT

    def test_in_use(self, ours: OurInitiator, node: Node) -> None:
        name = node.make_set(SIZE)
        with ours.create(random_pool(), name) as replica:
            with pytest.raises(PoolSetBusy) as caught:
                ours.remove(name)
            assert caught.value.errno == errno.EWOULDBLOCK
            replica.persist(PAGE, 100)
        assert node.part(name).exists()

    def test_names(self, ours: OurInitiator, node: Node) -> None:
        with pytest.raises(PoolSetNameRefused) as caught:
            ours.remove(f"{node.sets}/{node.make_set(SIZE)}")
        assert caught.value.errno == errno.EBADF
        with pytest.raises(PoolSetNotFound):
            ours.remove("none.set")
        with pytest.raises(PoolSetMalformed) as malformed:
            ours.remove(node.write_set("PMEMPOOLSET\n4M relative\n"))
        assert malformed.value.errno == errno.EINVAL


def persist_for_ever(replica: Replica) -> None:
    while True:
        replica.persist(PAGE, 100)


class TestLoss:
    @pytest.mark.alone
    def test_killed_while_idle(self, ours: OurInitiator, node: Node) -> None:
        pid = ours.note_pid()
        replica = ours.create(random_pool(), node.make_set(SIZE))
        replica.persist(PAGE, 100)
        os.kill(pid(), signal.SIGKILL)
        begun = time.monotonic()
        with pytest.raises(ReplicaLost) as caught:
            persist_for_ever(replica)
        assert time.monotonic() - begun < 2
        assert str(caught.value).startswith(node.host)
        assert "ended" in str(caught.value)
        assert isinstance(replica.failure, ReplicaLost)
        for call in (
            lambda: replica.read(bytearray(8), PAGE),
            lambda: replica.deep_persist(PAGE, 8),
            lambda: replica.set_attributes(ATTRIBUTES),
        ):
            with pytest.raises(ReplicaLost):
                call()
        replica.close()
        with pytest.raises(ClosedError):
            replica.persist(PAGE, 8)

    @pytest.mark.alone
    @pytest.mark.own_login
    @pytest.mark.parametrize("method", METHODS)
    def test_killed_under_load(self, ours: OurInitiator, node: Node, method: str) -> None:
        pid = ours.note_pid()
        options, variables = METHODS[method]
        ours.command(*options, variables=variables)
        replica = ours.create(random_pool(), node.make_set(SIZE), nlanes=4)
        ends: list[tuple[float, RpmemError]] = []

        def work(lane: int) -> None:
            try:
                while True:
                    replica.persist(PAGE, 100_000, lane=lane, relaxed=bool(lane & 1))
                    replica.persist(PAGE, 100, lane=lane)
            except RpmemError as error:
                ends.append((time.monotonic(), error))

        threads = [threading.Thread(target=work, args=(lane,)) for lane in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(0.3)
        killed = time.monotonic()
        os.kill(pid(), signal.SIGKILL)
        for thread in threads:
            thread.join(30)
        assert len(ends) == 4
        for ended, error in ends:
            assert type(error) is ReplicaLost
            assert error.errno == errno.ECONNRESET
            assert ended - killed < 2
        begun = time.monotonic()
        replica.close()
        assert time.monotonic() - begun < 2

    def test_a_silent_daemon_runs_into_the_deadline(self, ours: OurInitiator, node: Node) -> None:
        pid = ours.note_pid()
        replica = ours.create(random_pool(), node.make_set(SIZE), timeout=3.0)
        stop(pid())
        try:
            begun = time.monotonic()
            with pytest.raises(DeadlineExceeded):
                replica.persist(PAGE, 100)
            assert time.monotonic() - begun < 15
            replica.close()
            assert time.monotonic() - begun < 30
        finally:
            os.kill(pid(), signal.SIGKILL)

    def test_our_death_frees_the_pool(self, ours: OurInitiator, node: Node) -> None:
        name = node.make_set(SIZE)
        buffer = random_pool()
        child = os.fork()
        if child == 0:
            status = 1
            try:
                ours.create(buffer, name).persist(PAGE, 9000)
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
        deadline = time.monotonic() + 60
        while True:
            try:
                replica = ours.open(bytearray(SIZE), name)
                break
            except PoolSetBusy:
                assert time.monotonic() < deadline
                time.sleep(0.1)
        with replica:
            got = bytearray(9000)
            replica.read(got, PAGE)
            assert got == buffer[PAGE : PAGE + 9000]
