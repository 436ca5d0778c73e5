"""RPMEM_LOG_LEVEL and RPMEM_LOG_FILE: what is written, and what the application still gets."""

from __future__ import annotations

import io
import logging
import os
import stat
import subprocess
import sys

import pytest

from rpmem.base import logs
from rpmem.base.environment import Environment
from rpmem.errors import ConfigError, PoolSetNotFound

LOG = logging.getLogger("rpmem")


@pytest.fixture(autouse=True)
def put_back():
    yield
    logs.set_up(Environment())


def everything(path, level):
    logs.set_up(Environment(log_level=level, log_file=str(path)))
    with logs.call("open node2 a.set"):
        LOG.debug("a detail")
    with pytest.raises(PoolSetNotFound), logs.call("create node2 b.set"):
        raise PoolSetNotFound("there is no such pool set")
    LOG.warning("a warning")
    logs.set_up(Environment())
    return path.read_text() if path.exists() else None


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        (1, {"b.set: there is no such pool set", "a warning"}),
        (2, {"b.set: there is no such pool set", "a warning", "open node2"}),
        (3, {"b.set: there is no such pool set", "a warning", "open node2", "a detail"}),
        (4, {"b.set: there is no such pool set", "a warning", "open node2", "a detail"}),
        (99, {"b.set: there is no such pool set", "a warning", "open node2", "a detail"}),
    ],
)
def test_levels(tmp_path, level, expected):
    text = everything(tmp_path / "log", level)
    known = {"b.set: there is no such pool set", "a warning", "open node2", "a detail"}
    assert {words for words in known if words in text} == expected
    assert all("rpmem[" in line for line in text.splitlines())


def test_level_0_writes_nothing_and_makes_no_file(tmp_path):
    assert everything(tmp_path / "log", 0) is None


def test_a_name_that_ends_in_a_dash_gets_the_process_id(tmp_path):
    logs.set_up(Environment(log_level=1, log_file=str(tmp_path / "log-")))
    LOG.error("a word")
    assert "a word" in (tmp_path / f"log-{os.getpid()}").read_text()


def test_a_file_that_is_made_is_private(tmp_path):
    before = os.umask(0)
    try:
        assert "a warning" in everything(tmp_path / "log", 1)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "log").stat().st_mode) == 0o600


def test_a_second_process_appends(tmp_path):
    path = tmp_path / "log"
    path.write_text("of another process\n")
    assert everything(path, 1).startswith("of another process\n")


def test_without_a_file_standard_error_is_written():
    program = (
        "import logging; from rpmem.base import logs;"
        "from rpmem.base.environment import Environment;"
        "logs.set_up(Environment(log_level=1)); logging.getLogger('rpmem').error('a word')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == ""
    assert done.stderr.endswith("ERROR: a word\n")


def test_a_file_that_cannot_be_written(tmp_path):
    with pytest.raises(ConfigError, match="RPMEM_LOG_FILE"):
        logs.set_up(Environment(log_level=1, log_file=str(tmp_path / "none" / "log")))


def test_the_application_gets_failures_as_exceptions_only(tmp_path):
    """Its own handlers see warnings as ever, and not what it is told by an exception."""
    seen = io.StringIO()
    handler = logging.StreamHandler(seen)
    logging.getLogger().addHandler(handler)
    try:
        everything(tmp_path / "log", 2)
    finally:
        logging.getLogger().removeHandler(handler)
    assert seen.getvalue() == "a warning\n"


def test_a_new_log_takes_the_place_of_the_old_one(tmp_path):
    for name in ("old", "new"):
        logs.set_up(Environment(log_level=1, log_file=str(tmp_path / name)))
        LOG.error("a word for the %s one", name)
    assert (tmp_path / "old").read_text().count("a word") == 1
    assert (tmp_path / "new").read_text().count("a word") == 1
