"""docs/compatibility.md: every test that it names exists, and every row of its tables has one."""

from __future__ import annotations

import ast
import re
import struct
from pathlib import Path

import pytest

import rpmem
from rpmem.base import environment, pool_format
from rpmem.control.pmdk_status import Status
from rpmem.files.header import PoolAttributes
from rpmemd import config

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "docs" / "compatibility.md"
REFERENCE = re.compile(r"[\w/]+\.py::[\w.]+")


def rows() -> list[tuple[int, list[str]]]:
    """Return every row of every table that has a column for tests: its line and its cells."""
    found = []
    header: list[str] = []
    lines = PAGE.read_text().splitlines()
    for number, line in enumerate(lines, 1):
        if not line.startswith("|"):
            header = []
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not header:
            header = cells
            names = "test" in header[-1] or "rpmemd" in header[-1]
        elif set(line) <= set("|- "):
            continue
        elif names:
            assert len(cells) == len(header), f"line {number}: {line}"
            found.append((number, cells))
    return found


REFERENCES = sorted(set(REFERENCE.findall(PAGE.read_text())))


def has_test(file: Path, parts: list[str]) -> bool:
    """Whether a file has a function, or a class with that method of its own or of a base's."""
    tree = ast.parse(file.read_text())
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and parts == [node.name]:
            return True
        if isinstance(node, ast.ClassDef) and node.name == parts[0] and len(parts) == 2:
            methods = [each.name for each in node.body if isinstance(each, ast.FunctionDef)]
            bases = [base.id for base in node.bases if isinstance(base, ast.Name)]
            return parts[1] in methods or any(
                has_test(home_of(tree, base) or file, [base, parts[1]]) for base in bases
            )
    return False


def home_of(tree: ast.Module, name: str) -> Path | None:
    """Return the file that a name of a test module comes from, None for the module itself."""
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and any(each.name == name for each in node.names):
            return ROOT / f"{(node.module or '').replace('.', '/')}.py"
    return None


@pytest.mark.parametrize("reference", REFERENCES)
def test_the_test_exists(reference: str) -> None:
    path, _, name = reference.partition("::")
    file = ROOT / "tests" / path
    assert file.is_file(), f"there is no {file}"
    assert name.rpartition(".")[2].startswith("test_")
    assert has_test(file, name.split(".")), f"{path} has no {name}"


def test_a_test_that_is_not_there_would_be_missed() -> None:
    file = ROOT / "tests/interop/test_librpmem_against_ours.py"
    assert has_test(file, ["TestCalls", "test_set_attributes"])
    assert not has_test(file, ["TestCalls", "test_no_such_thing"])
    assert not has_test(file, ["TestNothing", "test_set_attributes"])
    assert not has_test(file, ["test_set_attributes"])


def test_every_row_names_a_test() -> None:
    assert len(rows()) > 100
    for number, cells in rows():
        assert REFERENCE.search(cells[-1]), f"{PAGE.name}:{number} names no test: {cells}"


def words() -> str:
    return PAGE.read_text()


def test_every_variable_is_there() -> None:
    source = Path(environment.__file__).read_text()
    for name in set(re.findall(r"RPMEM_[A-Z_]+", source)):
        assert f"`{name}`" in words(), name


def test_every_option_and_key_is_there() -> None:
    for name in re.findall(r"--([a-z-]+)", config.HELP):
        assert f"--{name}" in words(), name
    for name in config._VALUES:
        assert f"`{name}`" in words() or f"--{name}" in words(), name


def test_every_status_is_there() -> None:
    for status in Status:
        if status:
            assert re.search(rf"\| status {status:d},", words()), status


CALLS = {
    "rpmem_create",
    "rpmem_open",
    "rpmem_set_attr",
    "rpmem_close",
    "rpmem_persist",
    "rpmem_deep_persist",
    "rpmem_flush",
    "rpmem_drain",
    "rpmem_read",
    "rpmem_remove",
    "rpmem_check_version",
    "rpmem_errormsg",
}
CONSTANTS = {
    "RPMEM_PERSIST_RELAXED",
    "RPMEM_FLUSH_RELAXED",
    "RPMEM_REMOVE_FORCE",
    "RPMEM_REMOVE_POOL_SET",
    "RPMEM_POOL_HDR_SIG_LEN",
    "RPMEM_POOL_HDR_UUID_LEN",
    "RPMEM_POOL_USER_FLAGS_LEN",
    "RPMEM_MIN_POOL",
    "RPMEM_MIN_PART",
    "RPMEM_MAJOR_VERSION",
    "RPMEM_MINOR_VERSION",
}


@pytest.mark.parametrize("name", sorted(CALLS | CONSTANTS))
def test_everything_in_librpmems_header_is_there(name: str) -> None:
    assert re.search(rf"`{name}\b", words())


def test_the_lists_are_those_of_the_original() -> None:
    """Against librpmem.h itself, where ``make peers`` has brought it."""
    from tests.interop.support.originals import peers_folder

    header = peers_folder() / "root/usr/include/librpmem.h"
    if not header.exists():
        pytest.skip("PMDK's originals are not here (make peers brings them)")
    text = header.read_text()
    calls = set(re.findall(r"\b(rpmem_\w+)\(", text))
    constants = set(re.findall(r"#define (RPMEM_\w+)", text))
    assert calls == CALLS
    assert constants == CONSTANTS


def test_constants() -> None:
    """Lengths and limits are librpmem's, whatever they are called here."""
    attributes = PoolAttributes(
        signature=b"s" * 8, poolset_uuid=b"p" * 16, uuid=b"u" * 16, user_flags=b"f" * 16
    )
    for name, length in (("signature", 8), ("poolset_uuid", 16), ("uuid", 16), ("user_flags", 16)):
        assert len(getattr(attributes, name)) == length
        with pytest.raises(rpmem.RpmemError):
            PoolAttributes(**{name: b"x" * (length + 1)})
    assert len(PoolAttributes.__match_args__) == 10
    assert len(attributes.pack()) == struct.calcsize("8s4I16s16s16s16s16s") == 104
    assert pool_format.MINIMUM_SIZE == 2 << 20
    assert pool_format.HEADER_SIZE == 4096
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+)?", rpmem.__version__)
