"""A pool that was left open with libpmem2 and is opened without it, and the other way round."""

from __future__ import annotations

import pytest

from rpmem import errors
from rpmem.files import header
from rpmem.files.header import PoolAttributes
from rpmem.files.poolfiles import PoolFiles
from rpmem.files.poolset import Part, PoolSet

IDENTITY = "rpmem.memory.device.device_identity"


@pytest.fixture
def wanted(tmp_path):
    return PoolSet((Part(2 << 20, str(tmp_path / "part0")),))


@pytest.fixture
def library(monkeypatch):
    """Say what device libpmem2 finds; None: there is no libpmem2."""

    def finds(device):
        def identity(_):
            if device is None:
                raise errors.MissingExtension("libpmem2.so.1 is away", hint="Install libpmem2")
            return len(device), device

        monkeypatch.setattr(IDENTITY, identity)

    return finds


def made(wanted):
    given = PoolAttributes(
        signature=b"TESTPOOL",
        major=3,
        incompat=header.INCOMPAT_SDS,
        poolset_uuid=b"s" * 16,
        uuid=b"u" * 16,
    )
    return PoolFiles.create(wanted, attributes=given)


def leave_open(pool):
    pool.region.close()
    for part in pool.parts:
        part.close()


def test_what_a_disk_has_to_tell_needs_no_library(wanted, library):
    library(b"")
    leave_open(made(wanted))
    library(None)
    leave_open(PoolFiles.open(wanted))
    library(b"")
    PoolFiles.open(wanted).close()


def test_a_loss_of_power_that_only_libpmem2_would_know_is_not_ruled_out(wanted, library):
    library(b"NVDIMM-7")
    leave_open(made(wanted))
    library(None)
    for open_it in (PoolFiles.open, PoolFiles.look):
        with pytest.raises(errors.MissingExtension, match="lost power unsafely since is not") as it:
            open_it(wanted)
        assert str(it.value).endswith("libpmem2.so.1 is away. Install libpmem2.")
    library(b"NVDIMM-7")
    PoolFiles.open(wanted).close()
    # Closed, there is nothing to know.
    library(None)
    PoolFiles.open(wanted).close()


def test_what_was_left_open_without_it_is_not_trusted_with_it(wanted, library):
    library(None)
    leave_open(made(wanted))
    library(b"NVDIMM-7")
    with pytest.raises(errors.HeaderError, match="or where libpmem2 was missing"):
        PoolFiles.open(wanted)
    # As before, it can be opened, and closed.
    library(None)
    PoolFiles.open(wanted).close()
    library(b"NVDIMM-7")
    PoolFiles.open(wanted).close()
