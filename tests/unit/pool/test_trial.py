"""How changes are found on this machine, and why not in a better way."""

from __future__ import annotations

import pytest

from rpmem.errors import MissingExtension, UsageError
from rpmem.pool.tracking import trial


@pytest.fixture
def refuse(monkeypatch):
    """Return a function that has a way of finding changes refused."""

    def refuse(name, error):
        def refused(*_):
            raise error

        monkeypatch.setattr(trial, name, refused)

    return refuse


def test_the_first_way_that_works_is_told(monkeypatch, refuse):
    tried = []
    monkeypatch.setattr(trial, "try_kernel", lambda region: tried.append(region.size))
    refuse("load_digests", AssertionError("digests are not needed"))
    assert trial.tried() == ("kernel", [])
    assert len(tried) == 1


def test_each_way_that_does_not_work_is_named(monkeypatch, refuse):
    refuse("try_kernel", UsageError("the kernel is of another opinion"))
    monkeypatch.setattr(trial, "load_digests", lambda: None)
    assert trial.tried() == ("digest", ["the kernel is of another opinion"])
    missing = MissingExtension("not built")
    refuse("load_digests", missing)
    assert trial.tried() == ("off", ["the kernel is of another opinion", str(missing)])
