"""The product has no switches for tests to break it: such code belongs to the tests."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rpmem.files.poolfiles import PoolFiles
from rpmem.memory import region
from rpmemd import service
from rpmemd.database import Database
from rpmemd.lane_server import LaneServer
from rpmemd.session import Session

ROOT = Path(__file__).resolve().parents[3]
WORDS = re.compile(
    rb"breakage|(?-i:\bBREAK_[A-Z])|shadow|skips?[_ ]?flush|answers?[_ ]?early|faulty|sabotage|"
    rb"for tests\b|only in tests|tests?[_ ]only|for_testing|outside tests",
    re.IGNORECASE,
)
SOURCES = (".py", ".pyi", ".pyx", ".pxd", ".c", ".h")
FILES = sorted(
    path
    for package in ("rpmem", "rpmemd")
    for path in (ROOT / package).rglob("*")
    if path.suffix in (*SOURCES, ".so")
)


def found_in(path: Path) -> set[bytes]:
    return set(WORDS.findall(path.read_bytes()))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_word_of_a_test_switch(path):
    assert found_in(path) == set()


def test_both_kinds_of_file_were_looked_at():
    kinds = {path.suffix for path in FILES}
    assert {".py", ".pyx", ".pxd", ".so"} <= kinds
    assert {"rpmemd/service.pyx", "rpmem/memory/media.pyx"} <= {
        str(path.relative_to(ROOT)) for path in FILES
    }


@pytest.mark.parametrize(
    "helper", ["_broken_service.pyx", "faulty_rpmemd.py", "shadow.py", "_broken_service.*.so"]
)
def test_the_words_are_found_where_they_are(helper):
    """The control: the helpers of the tests have them, in source and compiled."""
    from tests.support.compiled import build

    build("_broken_service")
    (path,) = (ROOT / "tests" / "support").glob(helper)
    assert found_in(path)


@pytest.mark.parametrize("name", ["breakage", "shadow"])
def test_nothing_takes_the_options(name):
    config = log = stream = database = None
    with pytest.raises(TypeError, match=name):
        Database("/", **{name: 1})
    with pytest.raises(TypeError, match=name):
        PoolFiles.open(None, **{name: 1})
    with pytest.raises(TypeError, match=name):
        PoolFiles.create(None, **{name: 1})
    with pytest.raises(TypeError, match=name):
        Session(config, log, stream, database, address="", peer="", **{name: 1})
    assert not hasattr(LaneServer, name)
    assert not hasattr(service.Service, name)
    assert not any(name in member for member in dir(region.Region))
