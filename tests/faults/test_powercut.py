"""Power cuts after every event of many scripts: what was promised is there, whatever was kept.

The long form is ``python -m tests.support.powercut.runs``. Every control is something broken on
purpose that the same cuts have to find.
"""

from __future__ import annotations

import os

import pytest

from rpmem.base.pool_format import RECORD_OFFSET
from rpmem.files import drafts, redo
from rpmem.files.partfile import PartFile
from rpmem.pool.catalogue.catalogue import Catalogue
from rpmem.pool.keepers import LocalKeeper
from tests.support.powercut import headers, runs, threads
from tests.support.powercut.model import Loss

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")

#: So many seeds a control may take; the numbers behind each are those it took when it was written.
MOST = range(40)


def test_what_was_promised_is_there(tmpfs):
    result = runs.Result()
    for seed in range(8):
        runs.run_seed(seed, result=result)
    assert result.images >= 3000
    assert result.chains >= 4
    for kind in ("here", "there", "pair", "restore", "here, read", "there, read"):
        assert result.counts[kind] > 4, result.counts


@pytest.mark.slow
def test_what_was_promised_is_there_for_longer(tmpfs):
    result = runs.Result()
    for seed in range(1000, 1040):
        runs.run_seed(seed, result=result)
    assert result.images > 20_000


def test_a_medium_that_skips_one_flush_in_fifty_is_found_out(tmpfs):
    assert runs.seeds_until_caught(MOST, one_in=50)


@pytest.mark.parametrize("event", ["sync", "syncnames"])
def test_a_file_system_that_skips_its_fsyncs_is_found_out(tmpfs, event):
    assert runs.seeds_until_caught(MOST, skips=lambda seen: seen[0] == event)


def never(*_, **__):
    """Stand for a call that is left out."""


def record_not_flushed(self, pieces):
    for offset, data in pieces:
        self._medium.store(RECORD_OFFSET + offset, data)


def zeros_not_flushed(self, writes, end, zeros=()):
    for offset, length in zeros:
        self._medium.zero(offset, length)
    store(self, writes, end)


def root_not_flushed(self, *arguments, **keywords):
    medium, self._medium = self._medium, Unflushed(self._medium)
    try:
        publish(self, *arguments, **keywords)
    finally:
        self._medium = medium


class Unflushed:
    """A medium whose flushes are left out."""

    def __init__(self, medium):
        self.load, self.store, self.zero = medium.load, medium.store, medium.zero

    spread = persist = staticmethod(never)


store, publish = Catalogue._store, Catalogue._publish

CONTROLS = {
    "a record that is not flushed": (LocalKeeper, "_store", record_not_flushed),
    "zeros of a new array that are not flushed": (Catalogue, "_store", zeros_not_flushed),
    "a root of the catalogue that is not flushed": (Catalogue, "_publish", root_not_flushed),
    "files whose contents are not synced": (PartFile, "sync", never),
    "names that are not synced": (drafts, "sync_directories", never),
    "names that are removed and not synced": (drafts, "unlink_durably", drafts.unlink),
}


@pytest.mark.parametrize("name", CONTROLS)
def test_a_control_is_found_out(tmpfs, monkeypatch, name):
    owner, function, broken = CONTROLS[name]
    monkeypatch.setattr(owner, function, broken)
    assert runs.seeds_until_caught(MOST)


# --- headers -----------------------------------------------------------------------------------


def test_headers_are_old_or_new_on_all_parts(tmpfs):
    assert sum(headers.run_headers(seed, images=50) for seed in range(10)) == 500


def without_note(parts, old, new):
    return False


class Unsynced:
    """`os`, for a module whose files are not synced before they get their names."""

    fsync = staticmethod(never)

    def __getattr__(self, name):
        return getattr(os, name)


HEADER_CONTROLS = {
    "headers replaced without a note": ("_write_note", without_note),
    "a note that is not synced before its rename": ("os", Unsynced()),
    "the name of a note that is not synced": ("sync_directory", never),
}


@pytest.mark.parametrize("name", HEADER_CONTROLS)
def test_a_control_of_headers_is_found_out(tmpfs, monkeypatch, name):
    monkeypatch.setattr(redo, *HEADER_CONTROLS[name])
    with pytest.raises(Loss):
        sum(headers.run_headers(seed) for seed in MOST)


# --- threads -----------------------------------------------------------------------------------


def test_what_each_thread_was_promised_is_there(tmpfs):
    assert sum(threads.run_threads(seed, images=60) for seed in range(4)) == 240


def test_a_medium_that_skips_flushes_is_found_out_by_threads(tmpfs):
    with pytest.raises(Loss):
        sum(threads.run_threads(seed, skips=runs.lying(seed, 50)) for seed in MOST)
