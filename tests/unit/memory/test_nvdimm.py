"""What is believed to be persistent memory, in the words of sysfs."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from rpmem.memory import nvdimm

NFIT = "devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region1"
E820 = "devices/platform/e820_pmem/ndbus0/region0"


def device(sysfs: Path, kind: str, number: str, place: str) -> Path:
    """Make a device at a place, and its name among those of its kind."""
    path = sysfs / place
    path.mkdir(parents=True)
    names = sysfs / "dev" / kind
    names.mkdir(parents=True, exist_ok=True)
    (names / number).symlink_to(os.path.relpath(path, names))
    return path


def region(sysfs: Path, place: str, kind: str) -> None:
    (sysfs / place).mkdir(parents=True, exist_ok=True)
    (sysfs / place / "uevent").write_text(f"DEVTYPE={kind}\nDRIVER=nd_region\nMODALIAS=nd:t2\n")


def believed(sysfs: Path, kind: str, number: str) -> bool:
    major, minor = map(int, number.split(":"))
    return nvdimm._device_is(kind, os.makedev(major, minor), str(sysfs))


@pytest.mark.parametrize("place", [NFIT, E820])
@pytest.mark.parametrize(
    ("kind", "below"),
    [
        ("char", "dax1.0/dax1.0"),
        ("char", "dax1.0/dax/dax1.0"),
        ("block", "namespace1.0/block/pmem1"),
        ("block", "namespace1.0/block/pmem1/pmem1p2"),
        ("block", "pfn1.0/block/pmem1"),
    ],
)
def test_a_persistent_region_of_libnvdimm_is_believed(tmp_path, place, kind, below):
    device(tmp_path, kind, "252:3", f"{place}/{below}")
    region(tmp_path, place, "nd_pmem")
    assert believed(tmp_path, kind, "252:3")
    assert not believed(tmp_path, kind, "252:4")


@pytest.mark.parametrize(
    ("kind", "place"),
    [
        ("char", "devices/platform/hmem.0/dax0.0"),
        ("char", "devices/platform/ACPI0017:00/root0/decoder0.0/region0/dax_region0/dax0.0"),
        ("char", "devices/virtual/misc/ndbus0/dax0.0"),
        ("char", "devices/ndbus0/bridge/region0/dax0.0"),
        ("char", "devices/ndbusX/region0/dax0.0"),
        ("block", "devices/pci0000:00/0000:00:1f.2/ata1/host0/target0:0:0/0:0:0:0/block/sda/sda1"),
        ("block", "devices/virtual/block/ram0"),
    ],
)
def test_other_memory_is_not(tmp_path, kind, place):
    device(tmp_path, kind, "252:3", place)
    for parent in (tmp_path / place).parents:
        if parent == tmp_path:
            break
        (parent / "uevent").write_text("DEVTYPE=nd_pmem\n")
    assert not believed(tmp_path, kind, "252:3")


@pytest.mark.parametrize("kind", ["nd_volatile", "nd_blk", ""])
def test_a_region_that_is_not_persistent_is_not(tmp_path, kind):
    device(tmp_path, "char", "252:3", f"{NFIT}/dax1.0/dax1.0")
    region(tmp_path, NFIT, kind)
    assert not believed(tmp_path, "char", "252:3")


def test_a_region_of_which_nothing_is_known_is_not(tmp_path):
    device(tmp_path, "char", "252:3", f"{NFIT}/dax1.0/dax1.0")
    assert not believed(tmp_path, "char", "252:3")


def test_a_region_that_the_host_flushes_is_not(tmp_path):
    place = "devices/pci0000:00/0000:00:04.0/virtio1/ndbus0/region0"
    device(tmp_path, "char", "252:3", f"{place}/dax0.0/dax0.0")
    region(tmp_path, place, "nd_pmem")
    assert not believed(tmp_path, "char", "252:3")


@pytest.mark.parametrize("second", ["nd_pmem", "nd_volatile"])
def test_a_device_of_devices_is_what_all_of_them_are(tmp_path, second):
    regions = [f"devices/LNXSYSTM:00/ndbus0/region{number}" for number in range(2)]
    parts = [
        device(
            tmp_path, "block", f"259:{number}", f"{place}/namespace{number}.0/block/pmem{number}"
        )
        for number, place in enumerate(regions)
    ]
    region(tmp_path, regions[0], "nd_pmem")
    region(tmp_path, regions[1], second)
    slaves = device(tmp_path, "block", "253:0", "devices/virtual/block/dm-0") / "slaves"
    slaves.mkdir()
    for part in parts:
        (slaves / part.name).symlink_to(part)
    assert believed(tmp_path, "block", "253:0") is (second == "nd_pmem")


def test_devices_that_are_made_of_themselves_end(tmp_path):
    slaves = device(tmp_path, "block", "253:0", "devices/virtual/block/dm-0") / "slaves"
    slaves.mkdir()
    (slaves / "dm-0").symlink_to(slaves.parent)
    assert not believed(tmp_path, "block", "253:0")


def test_the_disk_below_a_file_and_a_device_that_is_no_dax(tmp_path):
    with open(tmp_path / "file", "wb") as file, open("/dev/null", "rb") as null:
        assert stat.S_ISCHR(os.fstat(null.fileno()).st_mode)
        assert not nvdimm.is_persistent(null.fileno())
        number = os.fstat(file.fileno()).st_dev
        sysfs = tmp_path / "sys"
        place = f"{NFIT}/namespace1.0/block/pmem1"
        device(sysfs, "block", f"{os.major(number)}:{os.minor(number)}", place)
        region(sysfs, NFIT, "nd_pmem")
        assert nvdimm.is_persistent(file.fileno(), str(sysfs))
        assert not nvdimm.is_persistent(null.fileno(), str(sysfs))


@pytest.mark.parametrize(
    ("made", "may"),
    [
        ([], True),  # no sysfs
        (["bus/cpu"], False),
        (["bus/nd/devices"], False),
        (["bus/nd/devices/ndbus0"], True),
    ],
)
def test_only_the_kernel_can_say_that_there_are_none(tmp_path, made, may):
    for each in made:
        (tmp_path / each).mkdir(parents=True)
    assert nvdimm.can_be_here(str(tmp_path)) == may


def test_where_there_are_none_no_library_is_needed(tmp_path, monkeypatch):
    from rpmem.memory import device

    monkeypatch.setenv("RPMEM_LIBRARIES", "libpmem2=none")
    file = (tmp_path / "file").open("wb")
    with file:
        monkeypatch.setattr(nvdimm, "can_be_here", lambda: False)
        assert device.device_identity(file.fileno()) == (0, b"")
