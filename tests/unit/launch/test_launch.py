"""Starting commands on a real sshd, with both launchers, and every way in which that fails."""

from __future__ import annotations

import contextlib
import logging
import os
import pwd
import shlex
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import rpmem
from rpmem import Target
from rpmem.base.environment import Environment
from rpmem.errors import (
    AuthenticationFailed,
    ClosedError,
    ConnectionRefused,
    DaemonMissing,
    DeadlineExceeded,
    ForkedError,
    HostKeyUnknown,
    HostUnknown,
    LaunchFailed,
    NoiseBeforeProtocol,
    RpmemError,
    UsageError,
)
from rpmem.launch import diagnose, launch
from rpmem.launch.base import STDERR_LIMIT
from tests.support.sshd import ADDRESS, NODE, free_port, make_key
from tests.support.streams import echoed, read_all, received_at_the_end
from tests.support.traces import Traces

SOON = 30.0


@pytest.fixture(params=["openssh", "paramiko"])
def launcher(request):
    return request.param


@pytest.fixture
def start(sshd, launcher):
    """Start commands on the sshd of the tests, closed in the end."""
    started = []

    def run(command, *arguments, target=NODE, timeout_s=SOON, **more):
        transport = launch(
            Target.parse(target),
            arguments,
            environment=environment(),
            launcher=launcher,
            command=command,
            timeout_s=timeout_s,
            **more,
        )
        started.append(transport)
        return transport

    yield run
    for transport in started:
        transport.close(0.1)


def environment():
    return Environment.read()


def read_word(transport, timeout_s):
    """Return the status word, or what there is of it when no more comes."""
    word = b""
    with contextlib.suppress(DeadlineExceeded):
        while len(word) < 4 and (chunk := transport.receive(4 - len(word), timeout_s)):
            word += chunk
    return word


@pytest.fixture
def cause(start):
    """Start something that fails; return the error that its user sees."""

    def find(command="rpmemd", *, timeout_s=SOON, **more):
        try:
            transport = start(command, timeout_s=timeout_s, **more)
        except RpmemError as error:
            return error
        return diagnose(transport, read_word(transport, timeout_s))

    return find


def use_client(sshd, monkeypatch, name, **changes):
    """Let both launchers use another client configuration."""
    monkeypatch.setenv("RPMEM_SSH", str(sshd.client(name, **changes)))
    monkeypatch.setenv("HOME", str(sshd.directory / f"{name}_home"))


# --- streams -----------------------------------------------------------------------------------


def test_bytes_go_through_unchanged_while_both_sides_talk(start):
    transport = start("exec cat")
    message = bytes(range(256)) * 16384
    assert echoed(transport, message) == message


def test_arguments_reach_the_command_as_they_are(start):
    transport = start("printf '%s|' x", "--set", "a b;'c $HOME", "*")
    assert read_all(transport) == b"x|--set|a b;'c $HOME|*|"
    assert transport.exit_status(SOON) == 0


def test_exit_status_and_words(start):
    transport = start("echo why >&2; exit 7")
    assert read_all(transport) == b""
    assert transport.at_end
    assert transport.exit_status(SOON) == 7
    assert transport.stderr_text() == "why\n"


def test_receive_has_a_deadline_and_stays_usable(start):
    transport = start("exec cat")
    with pytest.raises(DeadlineExceeded, match="node2 sent nothing"):
        transport.receive(1, 0.1)
    assert transport.exit_status() is None
    transport.send(b"x")
    assert transport.receive(1, SOON) == b"x"


def test_send_has_a_deadline(start):
    transport = start("exec sleep 60")
    with pytest.raises(DeadlineExceeded, match="node2 took no data"):
        transport.send(bytes(1 << 24), timeout_s=1.0)


def test_a_flood_on_stderr_blocks_nobody(start):
    transport = start("yes 0123456789 | head -c 5500000 >&2; echo last >&2; printf done")
    assert read_all(transport) == b"done"
    assert transport.exit_status(SOON) == 0
    text = transport.stderr_text()
    assert len(text) == STDERR_LIMIT
    assert text.endswith("0123456789\nlast\n")


def test_close_lets_rpmemd_finish(start, tmp_path):
    witness = tmp_path / "ended"
    transport = start(f"cat >/dev/null; head -c 300000 /dev/zero; echo ok > {witness}")
    transport.close(SOON)
    assert witness.read_text() == "ok\n"
    with pytest.raises(ClosedError):
        transport.receive(1, 1)


def test_close_does_not_wait_for_who_does_not_end(start):
    transport = start("exec sleep 60")
    before = time.monotonic()
    transport.close(0.2)
    assert time.monotonic() - before < 10


@pytest.mark.parametrize("end", ["close", "kill"])
def test_a_waiting_receiver_is_woken(start, end):
    transport = start("exec sleep 60")
    ends = {"close": lambda: transport.close(0.2), "kill": transport.kill}
    got = received_at_the_end(transport, ends[end], head_start_s=0.2)
    assert got == b"" or isinstance(got, ClosedError)


def test_a_forked_process_lets_go(start):
    transport = start("exec cat")
    child = os.fork()
    if child == 0:
        code = 1
        try:
            transport.send(b"x")
        except ForkedError:
            transport.close()
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    transport.send(b"still here")
    assert transport.receive(100, SOON) == b"still here"
    transport.close(SOON)


def test_many_sessions_at_once(start):
    transports = [start("exec cat") for _ in range(4)]
    for number, transport in enumerate(transports):
        transport.send(b"%d" % number)
    assert [transport.receive(9, SOON) for transport in transports] == [b"0", b"1", b"2", b"3"]


def test_the_fabric_connects_to_the_name_behind_the_alias(start):
    assert start("exec cat").peer_host == ADDRESS


def test_user_and_port_of_the_target(start, sshd):
    transport = start("id -un", target=f"{sshd.user}@{ADDRESS}:{sshd.port}")
    assert read_all(transport).decode().strip() == sshd.user


def test_ipv4_only(start):
    assert read_all(start("printf yes", ipv4_only=True)) == b"yes"


def test_a_jump_host(start, sshd, monkeypatch):
    jump = f"Host inner\n  HostName {ADDRESS}\n  Port {sshd.port}\n  ProxyJump {NODE}\n"
    use_client(sshd, monkeypatch, "ssh", more=jump)
    transport = start("exec cat", target="inner")
    transport.send(b"through")
    assert transport.receive(100, SOON) == b"through"
    transport.close(SOON)
    sshd.client()


def test_a_proxy_command(start, sshd, monkeypatch):
    relay = sshd.install(
        "relay",
        f"exec {sys.executable} -c 'import socket, sys, threading, shutil\n"
        "peer = socket.create_connection((sys.argv[1], int(sys.argv[2])))\n"
        "def up():\n"
        "    while data := sys.stdin.buffer.raw.read(65536): peer.sendall(data)\n"
        "threading.Thread(target=up, daemon=True).start()\n"
        "while data := peer.recv(65536):\n"
        '    sys.stdout.buffer.write(data); sys.stdout.flush()\' "$@"',
    )
    proxy = f"Host inner\n  ProxyCommand {relay} {ADDRESS} {sshd.port}\n  HostKeyAlias alias\n"
    known = sshd.directory / "known_alias"
    known.write_text(sshd.known_hosts.read_text().replace(f"[{ADDRESS}]:{sshd.port}", "alias"))
    use_client(sshd, monkeypatch, "proxied", more=proxy, known_hosts=known)
    transport = start("exec cat", target="inner")
    transport.send(b"through")
    assert transport.receive(100, SOON) == b"through"


# --- which command, which launcher -------------------------------------------------------------


def test_commands_take_turns(sshd, launcher, monkeypatch):
    monkeypatch.setenv("RPMEM_CMD", "echo one|echo two|echo three")
    variables = environment()
    said = []
    for _ in range(4):
        with launch(
            Target.parse(NODE), ["x"], environment=variables, launcher=launcher
        ) as transport:
            said.append(read_all(transport).decode())
    assert said == ["one x\n", "two x\n", "three x\n", "one x\n"]


def test_the_argument_list_is_librpmem_s(sshd, monkeypatch):
    wrapper = sshd.directory / "wrapper"
    wrapper.write_text("#!/bin/sh\nprintf '%s\\n' \"$@\"\n")
    wrapper.chmod(0o755)
    monkeypatch.setenv("RPMEM_SSH", str(wrapper))
    monkeypatch.setenv("RPMEM_CMD", "rpmemd --log-level debug")

    def arguments(target, words=(), **more):
        with launch(
            Target.parse(target), words, environment=environment(), launcher="openssh", **more
        ) as transport:
            assert transport.peer_host == Target.parse(target).host
            return read_all(transport).decode().splitlines()

    command = "rpmemd --log-level debug"
    assert arguments("alice@node2:2222", ["--remove", "p.set"]) == [
        "-p", "2222", "-T", "-oBatchMode=yes", "alice@node2", f"{command} --remove p.set",
    ]  # fmt: skip
    assert arguments("node2") == ["-T", "-oBatchMode=yes", "node2", command]
    assert arguments("::1", ipv4_only=True) == ["-T", "-4", "-oBatchMode=yes", "::1", command]


def test_auto_takes_paramiko_where_there_is_no_ssh(sshd, monkeypatch):
    def chosen(**more):
        with launch(
            Target.parse(NODE), environment=environment(), command="true", **more
        ) as transport:
            return transport.launcher

    assert chosen() == "openssh"
    monkeypatch.setenv("RPMEM_LAUNCHER", "paramiko")
    assert chosen() == "paramiko"
    assert chosen(launcher="openssh") == "openssh"
    monkeypatch.delenv("RPMEM_LAUNCHER")
    monkeypatch.delenv("RPMEM_SSH")
    monkeypatch.setenv("PATH", "/no/such/directory")
    assert chosen() == "paramiko"
    with pytest.raises(LaunchFailed, match=r"cannot run ssh: No such file.*RPMEM_LAUNCHER"):
        chosen(launcher="openssh")
    monkeypatch.setenv("RPMEM_SSH", "ssh")
    with pytest.raises(LaunchFailed, match=r"cannot run ssh: No such file.*RPMEM_SSH"):
        chosen()
    with pytest.raises(UsageError, match="no launcher 'rsh'"):
        chosen(launcher="rsh")


def test_local_targets_need_no_ssh():
    with launch(
        Target.parse("local:/pools"),
        ["-f"],
        environment=environment(),
        launcher="paramiko",
        command="echo",
    ) as transport:
        assert transport.launcher == "local"
        assert read_all(transport) == b"--poolset-dir /pools -f\n"


def test_paramiko_is_imported_only_when_it_is_chosen(sshd):
    script = (
        "import sys\n"
        "from rpmem.launch import launch\n"
        "from rpmem.base.target import Target\n"
        f"launch(Target.parse('{NODE}'), command='true').close()\n"
        "launch(Target.parse('local:'), command='true').close()\n"
        "print('paramiko' in sys.modules)\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert answer.stdout == "False\n"


# --- rpmemd itself -----------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["local", "openssh", "paramiko"])
def test_rpmemd_starts_and_ends_with_its_stdin(sshd, tmp_path, where):
    options = ["--poolset-dir", str(tmp_path), "--log-file", str(tmp_path / "log")]
    target = f"local:{tmp_path}" if where == "local" else NODE
    transport = launch(
        Target.parse(target), options, launcher="auto" if where == "local" else where
    )
    with transport:
        assert transport.launcher == where
        assert read_word(transport, SOON) == bytes(4)
        assert transport.exit_status() is None
    assert transport.exit_status() in (0, 1), "it was ended by force"


@pytest.mark.parametrize("where", ["local", "openssh", "paramiko"])
def test_rpmemd_refuses_its_configuration(sshd, tmp_path, where):
    target = "local:" if where == "local" else NODE
    with launch(
        Target.parse(target),
        ["--poolset-dir", "not/absolute"],
        launcher="auto" if where == "local" else where,
    ) as transport:
        error = diagnose(transport, read_word(transport, SOON))
    assert type(error) is LaunchFailed
    assert error.errno == 22
    assert "refused to start" in str(error)


# --- causes ------------------------------------------------------------------------------------


def test_nothing_listens(cause):
    error = cause(target=f"{ADDRESS}:{free_port()}")
    assert type(error) is ConnectionRefused
    assert isinstance(error, ConnectionRefusedError)
    assert "Connection refused" in str(error)


def test_unknown_name(cause):
    error = cause(target="node2.invalid")
    assert type(error) is HostUnknown
    assert "node2.invalid cannot be found" in str(error)
    assert any(word in str(error) for word in ("not known", "name resolution", "No address"))


def test_unknown_name_behind_a_jump_host(cause, sshd, monkeypatch):
    use_client(sshd, monkeypatch, "far", more=f"Host *.invalid\n  ProxyJump {NODE}\n")
    error = cause(target="node9.invalid")
    assert type(error) is HostUnknown
    assert "node9.invalid" in str(error)


def test_nothing_listens_behind_a_jump_host(cause, sshd, monkeypatch):
    inner = f"Host inner\n  HostName {ADDRESS}\n  Port {free_port()}\n  ProxyJump {NODE}\n"
    use_client(sshd, monkeypatch, "far", more=inner)
    assert type(cause(target="inner")) is ConnectionRefused


def test_what_a_jump_host_says_is_heard_where_nothing_is_logged(cause, sshd, monkeypatch, caplog):
    """As by the command, which logs nothing unless it is asked to."""
    inner = f"Host inner\n  HostName {ADDRESS}\n  Port {free_port()}\n  ProxyJump {NODE}\n"
    use_client(sshd, monkeypatch, "far", more=inner)
    log = logging.getLogger("rpmem.launch.paramiko")
    with caplog.at_level(logging.CRITICAL):
        before = log.level, log.propagate
        assert type(cause(target="inner")) is ConnectionRefused
        assert (log.level, log.propagate) == before
        assert not caplog.records


def test_host_key_that_nobody_knows(cause, sshd, monkeypatch):
    empty = sshd.directory / "empty"
    empty.write_text("")
    use_client(sshd, monkeypatch, "stranger", known_hosts=empty)
    error = cause()
    assert type(error) is HostKeyUnknown
    assert "node2's host key is not known here" in str(error)
    assert empty.read_text() == "", "an unknown key was accepted"


def test_host_key_that_is_another(cause, sshd, monkeypatch):
    other = make_key(sshd.directory / "other_key")
    known = sshd.write_known_hosts(sshd.directory / "other_hosts", other)
    use_client(sshd, monkeypatch, "impostor", known_hosts=known)
    error = cause()
    assert type(error) is HostKeyUnknown
    assert "not the one that is known" in str(error)
    assert f"{known}:1" in str(error)
    assert "ssh-keygen -R" in str(error)


def test_host_key_that_is_revoked(cause, sshd, monkeypatch):
    known = sshd.directory / "revoked_hosts"
    good = sshd.known_hosts.read_text()
    known.write_text(good + "@revoked " + good)
    use_client(sshd, monkeypatch, "revoked", known_hosts=known)
    assert type(cause()) is HostKeyUnknown


def test_key_that_is_not_accepted(cause, sshd, monkeypatch):
    other = make_key(sshd.directory / "not_authorized")
    use_client(sshd, monkeypatch, "unauthorized", identity=other)
    error = cause()
    assert type(error) is AuthenticationFailed
    assert "ermission denied" in str(error)
    assert "ssh-add" in str(error)


def test_failed_login_leaves_nothing_behind(start, sshd, ssh_node, monkeypatch):
    other = make_key(sshd.directory / "not_authorized_either")
    use_client(sshd, monkeypatch, "leaves_nothing", identity=other)
    in_process = pytest.importorskip("rpmem.launch.in_process")
    target = Target.parse(ssh_node)
    before = None
    for _ in range(3):
        with pytest.raises(AuthenticationFailed):
            in_process.start(target, "rpmemd", timeout_s=SOON)
        if before is None:
            before = Traces.now()  # with what paramiko opens once
    assert not before.more()


def test_a_login_that_is_broken_off_at_once_leaves_no_timer_behind():
    in_process = pytest.importorskip("rpmem.launch.in_process")
    before = Traces.now()
    with socket.create_server((ADDRESS, 0)) as server:

        def hang_up() -> None:
            connection = server.accept()[0]
            connection.sendall(b"SSH-2.0-Nobody\r\n")
            connection.recv(1 << 12)
            connection.close()

        threading.Thread(target=hang_up).start()
        target = Target.parse(f"{ADDRESS}:{server.getsockname()[1]}")
        with pytest.raises(LaunchFailed):
            in_process.start(target, "rpmemd", timeout_s=600.0)
    assert not before.more()


def test_a_proxy_command_that_does_not_end_is_ended(sshd, monkeypatch, tmp_path):
    in_process = pytest.importorskip("rpmem.launch.in_process")
    deaf = tmp_path / "deaf"
    deaf.write_text("#!/bin/sh\ntrap '' TERM\nwhile :; do sleep 0.1; done\n")
    deaf.chmod(0o755)
    use_client(sshd, monkeypatch, "deaf", more=f"Host deaf\n  ProxyCommand {deaf}")
    before = Traces.now()
    with pytest.raises(DeadlineExceeded):
        in_process.start(Target.parse("deaf"), "rpmemd", timeout_s=0.5)
    assert not before.more()


def test_no_key_at_all(cause, sshd, monkeypatch):
    use_client(sshd, monkeypatch, "keyless", identity=sshd.directory / "no_such_key")
    assert type(cause()) is AuthenticationFailed


def test_key_with_a_passphrase_is_not_asked_for(cause, sshd, monkeypatch):
    locked = make_key(sshd.directory / "locked_key", passphrase="open sesame")
    use_client(sshd, monkeypatch, "locked", identity=locked)
    error = cause()
    assert type(error) is AuthenticationFailed
    if "offered" in str(error):
        assert "passphrase" in str(error)


def test_missing_rpmemd(cause):
    error = cause("no-such-rpmemd --log-level debug")
    assert type(error) is DaemonMissing
    assert str(error).startswith("no-such-rpmemd: command not found on node2 (ssh exit 127)")
    assert "no-such-rpmemd: command not found'" in str(error)
    assert "RPMEM_CMD" in str(error)


def test_rpmemd_that_cannot_be_run(cause):
    error = cause("/etc/passwd")
    assert type(error) is DaemonMissing
    assert "Permission denied" in str(error)


def test_login_shell_that_talks(cause, sshd):
    if Path(pwd.getpwuid(os.getuid()).pw_shell).name != "bash":
        pytest.skip("the login shell is not bash, whose start-up file this test writes")
    sshd.set_bashrc("echo Welcome to node2\necho Be nice")
    error = cause("head -c 4 /dev/zero; exec cat")
    assert type(error) is NoiseBeforeProtocol
    assert "node2's login shell printed 'Welcome to node2' before the protocol" in str(error)


def test_noise_and_then_silence(cause):
    error = cause("printf hi; exec sleep 60", timeout_s=3.0)
    assert type(error) is NoiseBeforeProtocol
    assert "printed 'hi' before" in str(error)


@pytest.mark.parametrize("noise", ["hi", "\\nlast login: never", "\\033[1mWelcome", "x\\0y"])
def test_command_that_talks(cause, noise):
    error = cause(f"printf '{noise}\\n'; sleep 0.2; head -c 4 /dev/zero; exec cat")
    assert type(error) is NoiseBeforeProtocol
    assert str(error).isprintable()


def test_noise_and_then_the_end(cause):
    error = cause("echo hi")
    assert type(error) is NoiseBeforeProtocol
    assert "printed 'hi' before" in str(error)


def test_rpmemd_that_refuses_its_configuration(cause):
    error = cause("printf '\\026\\0\\0\\0'; echo 'conf:3: no such key' >&2; exit 1")
    assert type(error) is LaunchFailed
    assert "refused to start: Invalid argument (errno 22): 'conf:3: no such key'" in str(error)
    assert error.errno == 22


def test_rpmemd_that_fails_with_words(cause):
    error = cause("echo 'cannot lock memory' >&2; exit 3")
    assert type(error) is LaunchFailed
    assert "(ssh exit 3): 'cannot lock memory'" in str(error)


def test_rpmemd_that_says_nothing(cause):
    error = cause("exec sleep 60", timeout_s=3.0)
    assert type(error) is DeadlineExceeded
    assert isinstance(error, TimeoutError)
    assert "node2 did not answer in 3 s" in str(error)


@pytest.fixture
def listener():
    """Make listeners on the loopback interface that greet as told and never answer."""
    sockets = []

    def make(greeting):
        server = socket.create_server((ADDRESS, 0))
        sockets.append(server)

        def serve():
            while True:
                try:
                    peer, _ = server.accept()
                except OSError:
                    return
                sockets.append(peer)
                if greeting:
                    peer.sendall(greeting)
                    peer.shutdown(socket.SHUT_WR)

        threading.Thread(target=serve, daemon=True).start()
        return server.getsockname()[1]

    yield make
    for opened in sockets:
        opened.close()


def test_a_server_that_never_greets(cause, listener):
    before = time.monotonic()
    error = cause(target=f"{ADDRESS}:{listener(b'')}", timeout_s=2.0)
    assert type(error) is DeadlineExceeded
    assert "in 2 s" in str(error)
    assert time.monotonic() - before < 20


def test_a_server_that_is_not_ssh(cause, listener, capfd):
    port = listener(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    error = cause(target=f"{ADDRESS}:{port}", timeout_s=10.0)
    assert type(error) is LaunchFailed
    assert capfd.readouterr().err == "", "ssh libraries must not print"


# --- what only the in-process launcher has to do by itself -------------------------------------


@pytest.fixture
def in_process(sshd):
    def run(command="printf yes", target=NODE):
        with launch(
            Target.parse(target),
            environment=environment(),
            launcher="paramiko",
            command=command,
            timeout_s=SOON,
        ) as transport:
            return read_all(transport)

    return run


@pytest.mark.parametrize("kind", ["rsa", "ecdsa"])
def test_other_kinds_of_keys(in_process, sshd, monkeypatch, kind):
    key = make_key(sshd.directory / f"user_{kind}", kind)
    authorized = sshd.directory / "authorized_keys"
    with authorized.open("a") as file:
        file.write(key.with_suffix(".pub").read_text())
    use_client(sshd, monkeypatch, f"client_{kind}", identity=key)
    assert in_process() == b"yes"


def test_default_identity_files(in_process, sshd, monkeypatch):
    sshd.client("plain")
    home = sshd.directory / "plain_home"
    config = home / ".ssh" / "config"
    lines = [line for line in config.read_text().splitlines() if "Identit" not in line]
    config.write_text("\n".join(lines))
    monkeypatch.setenv("HOME", str(home))
    with pytest.raises(AuthenticationFailed, match="no usable key"):
        in_process()
    (home / ".ssh" / "id_ed25519").write_bytes(sshd.identity.read_bytes())
    assert in_process() == b"yes"


def test_the_agent_s_keys(in_process, sshd, monkeypatch, tmp_path):
    locked = make_key(sshd.directory / "agent_key")
    use_client(sshd, monkeypatch, "agent", identity=locked.with_name("agent_key_away"))
    config = sshd.directory / "agent_home" / ".ssh" / "config"
    config.write_text(
        config.read_text()
        .replace("IdentityAgent none", "")
        .replace("IdentitiesOnly yes", "IdentitiesOnly no")
    )
    with (sshd.directory / "authorized_keys").open("a") as file:
        file.write(locked.with_suffix(".pub").read_text())
    with pytest.raises(AuthenticationFailed):
        in_process()
    path = f"/tmp/rpmem-agent-{os.getpid()}"  # a socket's path is short
    with subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.DEVNULL) as agent:
        try:
            deadline = time.monotonic() + SOON
            while not os.path.exists(path):
                assert time.monotonic() < deadline
                time.sleep(0.02)
            monkeypatch.setenv("SSH_AUTH_SOCK", path)
            subprocess.run(["ssh-add", "-q", locked], check=True, stdin=subprocess.DEVNULL)
            assert in_process() == b"yes"
            # With IdentitiesOnly the public half picks the agent's key.
            config.write_text(config.read_text().replace("Only no", "Only yes"))
            with pytest.raises(AuthenticationFailed):
                in_process()
            public = locked.with_suffix(".pub").read_bytes()
            locked.with_name("agent_key_away.pub").write_bytes(public)
            assert in_process() == b"yes"
        finally:
            agent.terminate()


def test_hashed_known_hosts(in_process, sshd, monkeypatch):
    known = sshd.directory / "hashed_hosts"
    known.write_text(sshd.known_hosts.read_text())
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", known], check=True, capture_output=True)
    assert "|1|" in known.read_text()
    use_client(sshd, monkeypatch, "hashed", known_hosts=known)
    assert in_process() == b"yes"


def test_one_of_several_keys_of_a_host(in_process, sshd, monkeypatch):
    other = make_key(sshd.directory / "other_key")
    known = sshd.write_known_hosts(sshd.directory / "two_hosts", other)
    known.write_text(known.read_text() + sshd.known_hosts.read_text())
    use_client(sshd, monkeypatch, "two", known_hosts=known)
    assert in_process() == b"yes"


def test_included_configuration(in_process, sshd, monkeypatch):
    sshd.client("including")
    home = sshd.directory / "including_home"
    (home / ".ssh" / "more").write_text(f"Host alias9\n  HostName {ADDRESS}\n  Port {sshd.port}\n")
    config = home / ".ssh" / "config"
    config.write_text("Include more\n" + config.read_text())
    monkeypatch.setenv("HOME", str(home))
    assert in_process(target="alias9") == b"yes"


@pytest.mark.parametrize("status", [0, 1, 17])
def test_a_removal_that_talks(tmp_path, status):
    """Whatever its status says: what answered may not have been rpmemd."""
    command = shlex.join(["sh", "-c", f"echo Welcome; exit {status}"])
    with pytest.raises(NoiseBeforeProtocol, match="Welcome"):
        rpmem.remove(f"local:{tmp_path}", "p.set", command=command)
