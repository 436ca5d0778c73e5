"""Target strings: what librpmem's manual promises, and what ssh must never get to see."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpmem.base.target import ReplicaSpec, Target, check_pool_set_name
from rpmem.errors import PoolSetNameRefused, RpmemError, TargetSyntaxError, UsageError


@pytest.mark.parametrize(
    ("text", "user", "host", "port"),
    [
        ("node2", None, "node2", None),
        ("user@node2", "user", "node2", None),
        ("node2:22", None, "node2", 22),
        ("user@node2.example:65535", "user", "node2.example", 65535),
        ("10.0.0.1:1", None, "10.0.0.1", 1),
        ("::1", None, "::1", None),
        ("fe80::1%eth0", None, "fe80::1%eth0", None),
        ("user@2001:db8::7", "user", "2001:db8::7", None),
        ("[::1]", None, "::1", None),
        ("[::1]:2222", None, "::1", 2222),
        ("u@[fe80::1%br-lan.7]:2222", "u", "fe80::1%br-lan.7", 2222),
        ("[node2]:22", None, "node2", 22),
        ("corp\\user@node2", "corp\\user", "node2", None),
        ("user@realm@node2", "user@realm", "node2", None),
        ("local", None, "local", None),
        ("local:22", None, "local", 22),
        ("node2:0022", None, "node2", 22),
        ("knoten-größe", None, "knoten-größe", None),
    ],
)
def test_remote_forms(text, user, host, port):
    target = Target.parse(text)
    assert (target.user, target.host, target.port) == (user, host, port)
    assert not target.is_local
    assert target.local_directory is None
    assert Target.parse(str(target)) == target


@pytest.mark.parametrize(
    ("text", "directory"),
    [("local:", None), ("local:/pools", "/pools"), ("local:/a@b:c", "/a@b:c")],
)
def test_local_forms(text, directory):
    target = Target.parse(text)
    assert target.is_local
    assert target.local_directory == directory
    assert str(target) == text
    assert Target.parse(str(target)) == target


@pytest.mark.parametrize(
    "text",
    [
        "",
        "@",
        "@node2",
        "user@",
        "user@:22",
        ":22",
        "node2:",
        "node2:0",
        "node2:65536",
        "node2:99999999999999999999",
        "node2:-1",
        "node2:+22",
        "node2:2_2",
        "node2:ssh",
        "node2:\uff12\uff12",
        "node2: 22",
        "[::1",
        "[]:22",
        "[::1]22",
        "[::1]:",
        "[::1]:0",
        "[-x]:22",
        "1:2:3",
        "host:22:23",
        "gg::1",
        "fe80::1%",
        "fe80::1%eth0;reboot",
        "local:pools",
        "local:./pools",
        "local:/a b",
        "local:/a\n",
        "no de",
        " node2",
        "node2\t",
        "node2\n",
        "node2\0",
        "node2\x1b[31m",
        "node2\u202e",
        "no/de",
        "no%de",
        "no,de",
        "$(reboot)",
        "`reboot`@node2",
        "us;er@node2",
        "us:er@node2",
        "user\\@node2",
        "a" * 1025,
        "u" * 1025 + "@node2",
    ],
)
def test_refused(text):
    with pytest.raises(TargetSyntaxError) as caught:
        Target.parse(text)
    assert str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    "text",
    [
        "-oProxyCommand=reboot",
        "-l",
        "-",
        "-node2:22",
        "user@-oProxyCommand=x",
        "-oX@node2",
        "-u@node2:22",
        "[-oX]:22",
    ],
)
def test_ssh_options_are_not_smuggled(text):
    with pytest.raises(TargetSyntaxError) as caught:
        Target.parse(text)
    assert "option" in str(caught.value)


@pytest.mark.parametrize(
    "fields",
    [
        {"host": "-oX"},
        {"host": ""},
        {"host": "a b"},
        {"host": "node2", "user": ""},
        {"host": "node2", "user": "-l"},
        {"host": "node2", "port": 0},
        {"host": "node2", "port": 65536},
        {"host": "node2", "local_directory": "/x"},
        {"is_local": True, "user": "user"},
        {"is_local": True, "port": 22},
        {"is_local": True, "host": "node2"},
        {"is_local": True, "local_directory": "pools"},
    ],
)
def test_the_constructor_is_no_way_around(fields):
    with pytest.raises(TargetSyntaxError):
        Target(**fields)


def test_parse_takes_strings_only():
    with pytest.raises(TargetSyntaxError):
        Target.parse(b"node2")  # type: ignore[arg-type]


def test_ssh_destination_has_no_port_and_no_brackets():
    assert Target.parse("u@[::1]:22").ssh_destination == "u@::1"
    assert Target.parse("node2:22").ssh_destination == "node2"


@given(st.text())
def test_any_text_is_refused_politely_or_round_trips_safely(text):
    try:
        target = Target.parse(text)
    except TargetSyntaxError:
        return
    assert Target.parse(str(target)) == target
    assert not target.host.startswith("-")
    assert not (target.user or "").startswith("-")
    assert not target.ssh_destination.startswith("-")
    assert str(target).isprintable()
    assert " " not in str(target)


_names = st.from_regex(r"[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,20}", fullmatch=True)


@given(
    user=st.none() | _names,
    host=_names | st.ip_addresses(v=4).map(str) | st.ip_addresses(v=6).map(str),
    port=st.none() | st.integers(1, 65535),
)
def test_round_trip(user, host, port):
    target = Target(user=user, host=host, port=port)
    assert Target.parse(str(target)) == target


@given(st.text(alphabet="-@:[]%loca/.1f "))
def test_round_trip_of_what_looks_like_syntax(text):
    try:
        target = Target.parse(text)
    except TargetSyntaxError:
        return
    assert Target.parse(str(target)) == target


@pytest.mark.parametrize(
    "name", ["pool.set", "dir/pool.set", "./-x.set", "..pool", "a/..b/c", "größe.set"]
)
def test_pool_set_names(name):
    assert check_pool_set_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/abs.set",
        "..",
        "../x.set",
        "a/../../x.set",
        "a/..",
        ".",
        "a/",
        "a/.",
        "-r",
        "--force",
        "a b",
        "a\n",
        "a\0",
        "x" * 4096,
    ],
)
def test_pool_set_names_refused(name):
    with pytest.raises(PoolSetNameRefused) as caught:
        check_pool_set_name(name)
    assert str(caught.value).isprintable()


def test_replica_spec():
    spec = ReplicaSpec.parse("user@node2:22 \t pool.set")
    assert spec == ReplicaSpec(Target.parse("user@node2:22"), "pool.set")
    assert spec.parts == 0
    assert ReplicaSpec.parse(str(spec)) == spec
    assert ReplicaSpec.parse("local: a.set").target.is_local


@pytest.mark.parametrize("text", ["", "node2", "node2 a.set b", "node2\u00a0a.set"])
def test_replica_spec_needs_two_words(text):
    with pytest.raises(TargetSyntaxError):
        ReplicaSpec.parse(text)


def test_replica_spec_checks_its_parts():
    with pytest.raises(PoolSetNameRefused):
        ReplicaSpec.parse("node2 /etc/passwd")
    with pytest.raises(TargetSyntaxError):
        ReplicaSpec.parse("-oX a.set")
    with pytest.raises(UsageError):
        ReplicaSpec(Target(), "a.set", parts=-1)


@given(st.text())
def test_replica_spec_of_any_text(text):
    try:
        spec = ReplicaSpec.parse(text)
    except RpmemError:
        return
    assert ReplicaSpec.parse(str(spec)) == spec
