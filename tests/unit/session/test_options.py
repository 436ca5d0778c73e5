"""How to reach a replica: each wish arrives under its own name."""

from __future__ import annotations

from dataclasses import fields

import pytest

from rpmem.session.options import SessionOptions

WISHES = {
    "nlanes": 3,
    "timeout": 4.5,
    "provider": "sockets",
    "step": "commit",
    "launcher": "paramiko",
    "command": "my-rpmemd",
    "protocol": "pmdk",
    "lane_hosts": "10.0.0.0/8",
    "encryption": "off",
}


def test_every_wish_is_passed_on():
    assert set(WISHES) == {field.name for field in fields(SessionOptions)}
    assert SessionOptions(**WISHES).keywords() == WISHES


@pytest.mark.parametrize("name", sorted(WISHES))
def test_a_wish_changes_nothing_else(name):
    plain = SessionOptions().keywords()
    one = SessionOptions(**{name: WISHES[name]}).keywords()
    assert {**plain, name: WISHES[name]} == one
