"""Environment variables: librpmem's meaning of them, and errors instead of silence."""

from __future__ import annotations

import threading
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpmem.base import environment
from rpmem.base.environment import Environment
from rpmem.errors import ConfigError, UsageError

VARIABLES = {
    "RPMEM_SSH",
    "RPMEM_CMD",
    "RPMEM_ENABLE_SOCKETS",
    "RPMEM_ENABLE_VERBS",
    "RPMEM_MAX_NLANES",
    "RPMEM_WORK_QUEUE_SIZE",
    "RPMEM_LOG_LEVEL",
    "RPMEM_LOG_FILE",
    "RPMEM_PROVIDER",
    "RPMEM_LAUNCHER",
    "RPMEM_TIMEOUT",
    "RPMEM_SPIN_US",
    "RPMEM_PROTOCOL",
    "RPMEM_LANE_HOSTS",
    "RPMEM_ENCRYPTION",
}


def test_defaults():
    got = Environment.read({})
    assert got == Environment()
    assert got.ssh == "ssh"
    assert got.commands == ("rpmemd",)
    assert (got.enable_sockets, got.enable_verbs) == (False, True)
    assert got.max_nlanes == 2**32 - 1
    assert got.work_queue_size is None
    assert (got.log_level, got.log_file, got.log_path()) == (0, None, None)
    assert (got.provider, got.launcher, got.timeout_s, got.spin_us) == (None, "auto", 30.0, None)


def test_empty_is_unset_except_for_switches():
    got = Environment.read(dict.fromkeys(VARIABLES, ""))
    # strtol makes 0 of an empty string, so librpmem turns verbs off.
    assert got == Environment(enable_sockets=False, enable_verbs=False)


def test_everything_set():
    got = Environment.read(
        {
            "RPMEM_SSH": "/usr/bin/my ssh",
            "RPMEM_CMD": "a --x | b",
            "RPMEM_ENABLE_SOCKETS": "1",
            "RPMEM_ENABLE_VERBS": "0",
            "RPMEM_MAX_NLANES": "4",
            "RPMEM_WORK_QUEUE_SIZE": "128",
            "RPMEM_LOG_LEVEL": "3",
            "RPMEM_LOG_FILE": "/tmp/rpmem-",
            "RPMEM_PROVIDER": "verbs;ofi_rxm",
            "RPMEM_LAUNCHER": "paramiko",
            "RPMEM_TIMEOUT": "2.5",
            "RPMEM_SPIN_US": "0",
            "RPMEM_PROTOCOL": "native",
            "RPMEM_LANE_HOSTS": "node2-ib,10.0.0.0/8",
            "RPMEM_ENCRYPTION": "on",
        }
    )
    assert got == Environment(
        ssh="/usr/bin/my ssh",
        commands=("a --x", "b"),
        enable_sockets=True,
        enable_verbs=False,
        max_nlanes=4,
        work_queue_size=128,
        log_level=3,
        log_file="/tmp/rpmem-",
        provider="verbs;ofi_rxm",
        launcher="paramiko",
        timeout_s=2.5,
        spin_us=0,
        protocol="native",
        lane_hosts=("node2-ib", "10.0.0.0/8"),
        encryption="on",
    )
    assert got.log_path(42) == "/tmp/rpmem-42"


@pytest.mark.parametrize("name", ["RPMEM_MAX_NLANES", "RPMEM_WORK_QUEUE_SIZE"])
@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1", 1),
        ("+7", 7),
        ("  7", 7),
        ("\t\n\v\f\r7", 7),
        ("007", 7),
        ("4294967295", 2**32 - 1),
        ("4294967296", 2**32 - 1),
        ("9223372036854775807", 2**32 - 1),
    ],
)
def test_counts(name, text, number):
    got = Environment.read({name: text})
    assert number in (got.max_nlanes, got.work_queue_size)
    assert Environment.read({name: text}) == Environment(
        **{name.removeprefix("RPMEM_").lower(): number}
    )


@pytest.mark.parametrize("name", ["RPMEM_MAX_NLANES", "RPMEM_WORK_QUEUE_SIZE"])
@pytest.mark.parametrize(
    "text", ["0", "-1", "1 ", "1x", "x", " ", "1.5", "0x10", "1_0", "\u0661", "9223372036854775808"]
)
def test_counts_refused(name, text):
    with pytest.raises(ConfigError, match=rf"{name} is '.*', which is not a positive integer"):
        Environment.read({name: text})


@pytest.mark.parametrize("name", ["RPMEM_ENABLE_SOCKETS", "RPMEM_ENABLE_VERBS"])
@pytest.mark.parametrize(
    ("text", "on"),
    [
        ("1", True),
        ("0", False),
        ("2", True),
        ("-1", True),
        ("+0", False),
        (" 1", True),
        ("", False),
    ],
)
def test_switches(name, text, on):
    assert getattr(Environment.read({name: text}), name.removeprefix("RPMEM_").lower()) is on


@pytest.mark.parametrize("name", ["RPMEM_ENABLE_SOCKETS", "RPMEM_ENABLE_VERBS"])
@pytest.mark.parametrize("text", ["yes", "on", "true", "1 ", "2147483648", "-2147483649", " "])
def test_switches_refused(name, text):
    with pytest.raises(ConfigError, match=name):
        Environment.read({name: text})


@pytest.mark.parametrize(
    ("text", "level"), [("0", 0), ("4", 4), ("100", 100), ("-3", 0), (" 2", 2)]
)
def test_log_level(text, level):
    assert Environment.read({"RPMEM_LOG_LEVEL": text}).log_level == level


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("RPMEM_LOG_LEVEL", "debug"),
        ("RPMEM_SSH", "  "),
        ("RPMEM_CMD", "|"),
        ("RPMEM_CMD", " "),
        ("RPMEM_CMD", "a||b"),
        ("RPMEM_CMD", "a|"),
        ("RPMEM_CMD", "|a"),
        ("RPMEM_PROVIDER", "tcp,verbs"),
        ("RPMEM_PROVIDER", "tcp "),
        ("RPMEM_PROVIDER", ";"),
        ("RPMEM_LAUNCHER", "ssh"),
        ("RPMEM_LAUNCHER", "OpenSSH"),
        ("RPMEM_TIMEOUT", "0"),
        ("RPMEM_TIMEOUT", "0.0"),
        ("RPMEM_TIMEOUT", "-1"),
        ("RPMEM_TIMEOUT", "inf"),
        ("RPMEM_TIMEOUT", "nan"),
        ("RPMEM_TIMEOUT", "1e3"),
        ("RPMEM_TIMEOUT", "30s"),
        ("RPMEM_TIMEOUT", "1000001"),
        ("RPMEM_TIMEOUT", "."),
        ("RPMEM_SPIN_US", "-1"),
        ("RPMEM_SPIN_US", "1.5"),
        ("RPMEM_SPIN_US", "10000001"),
    ],
)
def test_refused_with_name_value_and_remedy(name, text):
    with pytest.raises(ConfigError) as caught:
        Environment.read({name: text})
    assert name in str(caught.value)
    assert f"'{text.strip()}'" in str(caught.value)
    assert "unset it" in str(caught.value)


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(sorted(VARIABLES), st.text(max_size=12))))
def test_anything_is_read_or_refused(variables):
    try:
        got = Environment.read(variables)
    except ConfigError as error:
        refusal = error
    else:
        assert got.max_nlanes >= 1
        assert got.work_queue_size is None or got.work_queue_size >= 1
        assert got.timeout_s > 0
        assert got.commands
        return
    assert str(refusal).isprintable()


def test_commands_take_turns():
    got = Environment.read({"RPMEM_CMD": "LD_LIBRARY_PATH=/x rpmemd --config=/a|b|c"})
    turns = [got.next_command() for _ in range(7)]
    assert turns == [
        "LD_LIBRARY_PATH=/x rpmemd --config=/a",
        "b",
        "c",
        "LD_LIBRARY_PATH=/x rpmemd --config=/a",
        "b",
        "c",
        "LD_LIBRARY_PATH=/x rpmemd --config=/a",
    ]


def test_commands_take_turns_among_threads():
    got = Environment.read({"RPMEM_CMD": "a|b|c|d"})
    taken: list[str] = []
    threads = [
        threading.Thread(target=lambda: taken.extend(got.next_command() for _ in range(500)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counter(taken) == dict.fromkeys("abcd", 500)


def test_log_file_gets_the_process_id(monkeypatch):
    import os

    assert Environment(log_file="/tmp/x-").log_path() == f"/tmp/x-{os.getpid()}"
    assert Environment(log_file="/tmp/x").log_path() == "/tmp/x"


def test_current_is_read_once(monkeypatch):
    environment.current.cache_clear()
    monkeypatch.setenv("RPMEM_CMD", "first|second")
    assert environment.current().next_command() == "first"
    monkeypatch.setenv("RPMEM_CMD", "third")
    assert environment.current().next_command() == "second"
    environment.current.cache_clear()
    assert environment.current().next_command() == "third"
    monkeypatch.setenv("RPMEM_TIMEOUT", "soon")
    environment.current.cache_clear()
    with pytest.raises(ConfigError):
        environment.current()
    monkeypatch.delenv("RPMEM_TIMEOUT")
    assert environment.current().timeout_s == 30
    environment.current.cache_clear()


def test_a_protocol_is_the_callers_or_the_environments():
    set_up = environment.Environment(protocol="native")
    assert environment.protocol_of(None, set_up) == "native"
    assert environment.protocol_of("pmdk", set_up) == "pmdk"
    for odd in ("", "bogus", "PMDK"):
        with pytest.raises(UsageError, match="there is no protocol"):
            environment.protocol_of(odd, set_up)
