"""rpmemd's command line, configuration files and log."""

from __future__ import annotations

import io
import os
import re
import stat
import subprocess
import sys

import pytest

from rpmem import errors
from rpmemd import config as configuration
from rpmemd.config import Config
from rpmemd.log import Log


@pytest.fixture
def home(tmp_path):
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


@pytest.fixture
def read(tmp_path, home):
    """Read a command line with a home and a system-wide file of the test's own."""

    def run(*arguments, **environ):
        return configuration.read(
            arguments,
            environ={"HOME": str(home)} | environ,
            global_file=str(tmp_path / "global.conf"),
        )

    return run


def test_defaults(read, home):
    assert read() == Config(
        poolset_dir=str(home),
        remove=None,
        force=False,
        pool_set=False,
        nthreads=0,
        persist_apm=False,
        persist_general=True,
        use_syslog=True,
        log_level="err",
        protocol="both",
        providers=(),
        file_mode=0o600,
        spin_us=None,
    )


@pytest.mark.parametrize(
    ("arguments", "field", "value"),
    [
        (["-r", "p.set"], "remove", "p.set"),
        (["--remove=p.set"], "remove", "p.set"),
        (["--remove", "p.set", "--force"], "force", True),
        (["-sf"], "pool_set", True),
        (["-sf"], "force", True),
        (["--pool-set"], "pool_set", True),
        (["-t", "4"], "nthreads", 4),
        (["--nthreads", "0"], "nthreads", 0),
        (["--log-file", "/x/y"], "log_file", "/x/y"),
        (["--log-file", "/x/y"], "use_syslog", False),
        (["--log-file", "/x/y", "--use-syslog"], "use_syslog", True),
        (["--use-syslog", "--log-file", "/x/y"], "use_syslog", False),
        (["--poolset-dir", "/p"], "poolset_dir", "/p"),
        (["--persist-apm"], "persist_apm", True),
        (["--persist-general"], "persist_general", True),
        (["--log-level", "debug"], "log_level", "debug"),
        (["--log-l", "warn"], "log_level", "warn"),
        (["--protocol", "native"], "protocol", "native"),
        (["--provider", "tcp, verbs;ofi_rxm"], "providers", ("tcp", "verbs;ofi_rxm")),
        (["--file-mode", "0640"], "file_mode", 0o640),
        (["--file-mode", "660"], "file_mode", 0o660),
        (["--spin-us", "250"], "spin_us", 250),
        (["--encryption", "required"], "encryption", "required"),
        (["stray", "-t", "3", "words"], "nthreads", 3),
    ],
)
def test_options(read, arguments, field, value):
    assert getattr(read(*arguments), field) == value


@pytest.mark.parametrize(
    "arguments",
    [
        ["--nonsense"],
        ["-x"],
        ["--remove"],
        ["--log-level", "loud"],
        ["--log-file", ""],
        ["-t", "-1"],
        ["-t", "many"],
        ["-t", "99999999999999999999"],
        ["-t", "٣"],
        ["--protocol", "none"],
        ["--provider", ""],
        ["--provider", "tcp,,x"],
        ["--provider", "a b"],
        ["--file-mode", "1777"],
        ["--file-mode", "0x180"],
        ["--file-mode", "0440"],
        ["--file-mode", "8"],
        ["--spin-us", "1.5"],
        ["--encryption", "yes"],
        ["--spin-us", "1000001"],
        ["--nthreads", "1025"],
        ["--persist-apm=yes"],
        ["--persist", "x"],
    ],
)
def test_a_bad_command_line_exits_with_255(read, capsys, arguments):
    with pytest.raises(SystemExit) as caught:
        read(*arguments)
    assert caught.value.code == 255
    said = capsys.readouterr()
    assert said.out == ""
    assert "usage: rpmemd" in said.err


@pytest.mark.parametrize(
    ("option", "word"),
    [("-h", "--poolset-dir"), ("--help", "--pool-set"), ("-V", "version"), ("--version", "rpmemd")],
)
def test_help_and_version_exit_with_0_and_nothing_on_stdout(read, capsys, option, word):
    with pytest.raises(SystemExit) as caught:
        read(option)
    assert caught.value.code == 0
    said = capsys.readouterr()
    assert said.out == ""
    assert word in said.err


# --- files -------------------------------------------------------------------------------------


def test_order_of_precedence(read, tmp_path, home):
    (tmp_path / "global.conf").write_text("nthreads = 1\nlog-level = warn\npersist-apm = yes\n")
    (home / ".rpmemd.conf").write_text("nthreads=2\nlog-level = info\n")
    config = read("--log-level", "debug")
    assert (config.nthreads, config.log_level, config.persist_apm) == (2, "debug", True)
    own = tmp_path / "own.conf"
    own.write_text("spin-us = 7")
    config = read("-c", str(own))
    assert (config.nthreads, config.log_level, config.spin_us) == (0, "err", 7)


def test_every_key_of_a_file(read, home):
    (home / ".rpmemd.conf").write_text(
        """
        # a comment
        log-file = /var/log/my.log   # another
        poolset-dir=$HOME/sets
        persist-apm = yes
        persist-general = no
        log-level = notice
        nthreads = 3
        protocol = native
        provider = tcp,sockets
        file-mode = 0640
        spin-us = 0

        """
    )
    assert read() == Config(
        poolset_dir=f"{home}/sets",
        log_file="/var/log/my.log",
        use_syslog=False,
        persist_apm=True,
        persist_general=False,
        log_level="notice",
        nthreads=3,
        protocol="native",
        providers=("tcp", "sockets"),
        file_mode=0o640,
        spin_us=0,
    )


def test_a_log_file_turns_syslog_off_unless_the_command_line_wants_it(read, home):
    (home / ".rpmemd.conf").write_text("log-file = /x\n")
    assert not read().use_syslog
    assert read("--use-syslog").use_syslog
    (home / ".rpmemd.conf").write_text("log-file = /x\nuse-syslog = yes\n")
    assert read().use_syslog
    (home / ".rpmemd.conf").write_text("use-syslog = yes\n")
    config = read("--log-file", "/y")
    assert (config.log_file, config.use_syslog) == ("/y", True)


@pytest.mark.parametrize(
    "line",
    [
        "nonsense = 1",
        "nthreads",
        "nthreads =",
        "= 3",
        "nthreads = x",
        "persist-apm = true",
        "use-syslog = YES",
        "log-level = loud",
        "remove = p.set",
        "force = yes",
        "config = /x",
        "help = yes",
        "forced-command = yes",
        "poolset-dir = # nothing",
        "protocol = tcp",
    ],
)
def test_errors_name_file_and_line(read, home, line):
    file = home / ".rpmemd.conf"
    file.write_text(f"# first\n\n{line}\nnthreads = 1\n")
    with pytest.raises(errors.ConfigError) as caught:
        read()
    assert str(caught.value).startswith(f"{file}:3: ")


def test_what_the_command_line_overrides_is_checked_all_the_same(read, home):
    (home / ".rpmemd.conf").write_text("log-level = loud\n")
    with pytest.raises(errors.ConfigError):
        read("--log-level", "err")


def test_files_that_cannot_be_read(read, tmp_path, home):
    with pytest.raises(errors.ConfigError, match=r"none\.conf"):
        read("-c", str(tmp_path / "none.conf"))
    with pytest.raises(errors.ConfigError):
        read("-c", str(home))
    (tmp_path / "binary.conf").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(errors.ConfigError, match="UTF-8"):
        read("-c", str(tmp_path / "binary.conf"))
    (tmp_path / "huge.conf").write_bytes(b"#" * (2 << 20))
    with pytest.raises(errors.ConfigError, match="large"):
        read("-c", str(tmp_path / "huge.conf"))


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("$HOME", "{home}"),
        ("$HOME/sets", "{home}/sets"),
        ("/a/$HOME-x", "/a/{home}-x"),
        ("$HOMEWARD/x", "$HOMEWARD/x"),
        ("$HOME/$HOME", "{home}/$HOME"),
        ("/p", "/p"),
    ],
)
def test_home_is_expanded_once(read, home, given, wanted):
    assert read("--poolset-dir", given).poolset_dir == wanted.format(home=home)


def test_without_home_the_password_file_tells(tmp_path):
    config = configuration.read([], environ={}, global_file=str(tmp_path / "none"))
    assert config.poolset_dir.startswith("/")


# --- behind a forced command -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("", (None, False, False)),
        ("rpmemd", (None, False, False)),
        ("/usr/bin/rpmemd --remove p.set", ("p.set", False, False)),
        ("rpmemd --remove p.set --force --pool-set", ("p.set", True, True)),
        ("rpmemd -r a/b.set -s", ("a/b.set", False, True)),
    ],
)
def test_a_forced_command_takes_removal_from_the_client(read, command, expected):
    config = read("--forced-command", "--poolset-dir", "/p", SSH_ORIGINAL_COMMAND=command)
    assert (config.remove, config.force, config.pool_set) == expected
    assert config.poolset_dir == "/p"


@pytest.mark.parametrize(
    "command",
    [
        "rpmemd --poolset-dir /",
        "rpmemd -c /tmp/x",
        "rpmemd --log-file /tmp/x",
        "cat /etc/passwd",
        "rpmemd 'unclosed",
        "rpmemd; id",
    ],
)
def test_a_forced_command_takes_nothing_else(read, capsys, command):
    with pytest.raises(SystemExit) as caught:
        read("--forced-command", SSH_ORIGINAL_COMMAND=command)
    assert caught.value.code == 255
    assert "not allowed" in capsys.readouterr().err


def test_the_clients_command_is_ignored_without_a_forced_command(read):
    assert read(SSH_ORIGINAL_COMMAND="rpmemd --remove p.set").remove is None


# --- the log -----------------------------------------------------------------------------------


def test_log_levels_and_form():
    out = io.StringIO()
    journal = Log("notice", out)
    heard = []
    journal.sink = lambda level, message: heard.append((level, message))
    journal.err("one")
    journal.warn("two")
    journal.notice("three")
    journal.info("four")
    journal.debug("five")
    assert [line.split("] ")[1] for line in out.getvalue().splitlines()] == [
        "err: one",
        "warn: two",
        "notice: three",
    ]
    assert heard == [("err", "one"), ("warn", "two"), ("notice", "three")]


def test_log_lines_cannot_be_forged():
    out = io.StringIO()
    Log("err", out).err("bad name\nrpmemd[1] err: forged \x1b[31m" + "x" * 100_000)
    assert len(out.getvalue().splitlines()) == 1
    assert "\x1b" not in out.getvalue()
    assert len(out.getvalue()) < 5000


@pytest.mark.parametrize("mode", [0o600, 0o664])
@pytest.mark.parametrize("umask", [0, 0o077])
def test_a_log_that_is_made_is_private(tmp_path, home, mode, umask):
    made, there = tmp_path / "made", tmp_path / "there"
    there.touch()
    there.chmod(0o644)
    before = os.umask(umask)
    try:
        for file in (made, there):
            journal = Log(file=io.StringIO())
            journal.configure(
                Config(str(home), log_file=str(file), use_syslog=False, file_mode=mode)
            )
            journal.close()
    finally:
        os.umask(before)
    assert [stat.S_IMODE(file.stat().st_mode) for file in (made, there)] == [mode, 0o644]


def test_log_file(tmp_path, home):
    file = tmp_path / "rpmemd.log"
    file.write_text("before\n")
    journal = Log(file=io.StringIO())
    journal.configure(Config(str(home), log_file=str(file), use_syslog=False, log_level="info"))
    journal.info("hello")
    journal.debug("not this")
    journal.close()
    journal.err("after closing")
    lines = file.read_text().splitlines()
    assert lines[0] == "before"
    assert re.fullmatch(
        rf"\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d rpmemd\[{os.getpid()}\] info: hello", lines[1]
    )
    assert len(lines) == 2


def test_a_log_file_that_cannot_be_opened(tmp_path, home):
    with pytest.raises(errors.ConfigError) as caught:
        Log().configure(Config(str(home), log_file=f"{tmp_path}/none/x", use_syslog=False))
    assert "none/x" in str(caught.value)


def test_a_full_disk_does_not_end_the_session():
    full = open("/dev/full", "w")  # noqa: SIM115
    journal = Log("err", full)
    journal.err("lost")
    journal.err("lost too")
    with pytest.raises(OSError, match="space"):
        full.close()


def test_syslog(home, monkeypatch):
    import syslog

    said = []
    monkeypatch.setattr(syslog, "syslog", lambda *arguments: said.append(arguments))
    journal = Log(file=io.StringIO())
    journal.configure(Config(str(home), log_level="warn"))
    journal.warn("careful")
    journal.notice("unsaid")
    assert said == [(syslog.LOG_WARNING, "careful")]


def test_the_configuration_is_read_without_heavy_imports():
    program = (
        "import sys, rpmemd.config, rpmemd.log; heavy = {'numpy', 'argparse', 'logging',"
        " 'asyncio', 'rpmem.memory.region', 'click', 'paramiko'};"
        " print(sorted(heavy & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
