"""The benchmark of what finding changes costs: its C reference, and a quick run without judging."""

from __future__ import annotations

import mmap
import os
import socket
from pathlib import Path

import numpy as np
import pytest

from benchmarks import changes
from benchmarks.pages import PAGE, Digests, Written, read_anew, reported_for, sent
from benchmarks.room import Absent

PAGES = 1024


@pytest.fixture
def file(tmp_path):
    """Return a file of some pages."""
    path = tmp_path / "file"
    path.write_bytes(bytes([1]) * PAGES * PAGE)
    return path


@pytest.fixture
def memory(file):
    """Return a shared mapping of the file."""
    with file.open("r+b") as stream:
        return np.frombuffer(mmap.mmap(stream.fileno(), 0), np.uint8)


def test_the_kernel_tells_the_reference_what_was_stored(memory):
    try:
        written = Written(memory, 1 << 20)
    except Absent as why:
        pytest.skip(str(why))
    with written:
        assert len(written.take()) == 0
        memory[[3 * PAGE, 5 * PAGE + 17, 6 * PAGE]] = 9
        assert written.take().tolist() == [
            [(1 << 20) + 3 * PAGE, PAGE],
            [(1 << 20) + 5 * PAGE, 2 * PAGE],
        ]
        assert len(written.take()) == 0
        memory[:] = 7
        assert written.take().tolist() == [[1 << 20, PAGES * PAGE]]


@pytest.mark.parametrize("threads", [1, 3])
def test_digests_tell_the_reference_what_changed(memory, threads):
    try:
        digests = Digests(memory, threads)
    except Absent as why:
        pytest.skip(str(why))
    assert digests.changed() == 0
    memory[[0, 1, PAGES * PAGE - 1]] = 9
    assert digests.changed() == 2
    memory[0] = 9
    assert digests.changed() == 0


def test_a_file_is_probed_without_changing_it(file):
    before = file.read_bytes()
    read_anew(file)
    try:
        reported = reported_for(file, np.arange(0, 64, 8), PAGE)
    except Absent as why:
        pytest.skip(str(why))
    assert reported >= 8
    assert file.read_bytes() == before


def test_what_is_sent_is_counted():
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as one,
        server.accept()[0] as other,
    ):
        before = sent()
        descriptors = len(os.listdir("/proc/self/fd"))
        one.sendall(bytes(1000))
        other.sendall(bytes(10))
        assert sent() - before == 1010
        assert len(os.listdir("/proc/self/fd")) == descriptors


@pytest.mark.libfabric
def test_a_quick_run_counts_what_is_sent(tmp_path, capsys):
    places = [path for path in (Path("/dev/shm"), tmp_path) if os.access(path, os.W_OK)]
    figures = {figure.what: figure for figure in changes.measure(places, changes.QUICK)}
    page = capsys.readouterr().out
    assert all(figure.value >= 0 for figure in figures.values())
    for part in "abcd":
        assert f"\n{part}. " in page
    # Times say nothing about 16 MiB beside other tests; counts do.
    counts = [figure for what, figure in figures.items() if what.startswith("pages sent, ")]
    assert [figure for figure in counts if not figure.held] == []
    assert not list(tmp_path.glob("rpmem-changes-*"))
