"""``rpmem check``: what works between here and a target, step by step."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Unpack

import click

from rpmem.cli.options import session_options
from rpmem.terminal.tables import console

if TYPE_CHECKING:
    from rich.console import Console

    from rpmem.base.target import Target
    from rpmem.errors import RpmemError
    from rpmem.session.options import SessionKeywords
    from rpmem.session.replica import Replica

_SIZE = 2 << 20
_OFFSET = 1 << 20
_ROUNDS = 200

#: What the values of `rpmem.Pool.tracking` mean.
_FINDS = {
    "kernel": "asks the kernel what changed, but for files on DAX",
    "digest": "compares digests",
    "off": "sends the whole pool",
}


@click.command(short_help="Find out what works with a target and what does not.")
@click.argument("target")
@click.option(
    "--talk-only", is_flag=True, help="Only start rpmemd and greet it; do not create a pool."
)
@session_options
def command(target: str, talk_only: bool, **session: Unpack[SessionKeywords]) -> None:
    """Start rpmemd on TARGET and replicate a small pool to it.

    The pool set, rpmem-check-XXXX.set in the target's pool set directory, is removed afterwards.
    If a step fails, the cause is shown, and what to do about it.
    """
    from rpmem.base.target import Target

    out = console()
    where = Target.parse(target)
    _devices(out)
    _media(out)
    _encryption(out)
    _changes(out)
    native = _greet(out, where, session)
    if not native:
        out.print(
            "  note    PMDK's rpmemd cannot make pool sets: try 'rpmem create' with one that it has"
        )
    elif not talk_only:
        _probe(out, where, session)
    out.print("everything works")


@contextmanager
def _step(out: Console, what: str) -> Iterator[list[str]]:
    """Show a step, and its findings or its failure."""
    found: list[str] = []
    started = time.perf_counter()
    try:
        yield found
    except BaseException:
        out.print(f"  failed  {what}")
        raise
    milliseconds = (time.perf_counter() - started) * 1e3
    out.print(f"  ok      {what}: {', '.join([*found, f'{milliseconds:.0f} ms'])}")


def _devices(out: Console) -> None:
    """Show the RDMA devices of this side, if any."""
    from rpmem.base import hardware
    from rpmem.base.providers import VERBS
    from rpmem.errors import MissingExtension
    from rpmem.fabric import providers

    if not hardware.has_rdma_device():
        return
    try:
        devices = providers.load(VERBS).devices()
    except MissingExtension as error:
        out.print(f"  note    the RDMA devices here cannot be used: {error}")
        return
    for device in devices:
        facts = device.get("error") or ", ".join(
            (
                "up" if device["up"] else "no port is up",
                "persistent FLUSH" if device["flush"] else "no FLUSH",
                f"{device['lane_limit']} lanes at most",
            )
        )
        out.print(f"  note    RDMA device {device['name']} here: {facts}")


def _media(out: Console) -> None:
    """Show what this side makes of persistent memory, if that is less than it could."""
    from rpmem.files.media import why_not_pmem

    if (error := why_not_pmem()) is not None:
        out.print(f"  note    files on persistent memory are made durable by msync here: {error}")


def _encryption(out: Console) -> None:
    """Show why lanes cannot be encrypted on this side, if they cannot."""
    from rpmem.base.providers import STREAM
    from rpmem.errors import MissingExtension, ProviderUnavailable
    from rpmem.fabric import providers

    try:
        providers.load(STREAM).need_encryption()
    except (MissingExtension, ProviderUnavailable) as error:
        out.print(f"  note    lanes to other machines cannot be encrypted here: {error}")


def _changes(out: Console) -> None:
    """Show how pools on this side find what changed."""
    from rpmem.pool.tracking.trial import tried

    mode, reasons = tried()
    why = f" ({'; '.join(reasons)})" if reasons else ""
    out.print(f"  note    tracking is {mode!r} here: persist() without a range {_FINDS[mode]}{why}")


def _greet(out: Console, target: Target, session: SessionKeywords) -> bool:
    """Start rpmemd and show its greeting; return whether it speaks our protocol."""
    from rpmem._version import __version__
    from rpmem.base import environment
    from rpmem.control.initiator import InitiatorSession
    from rpmem.control.messages import Hello
    from rpmem.launch import launch
    from rpmem.session.channel import Channel, LegacySpoken

    timeout_s = session["timeout"] or environment.current().timeout_s
    with _step(out, f"start rpmemd on {target}") as found:
        channel = Channel(
            launch(target, launcher=session["launcher"] or "auto", timeout_s=timeout_s),
            InitiatorSession(Hello.of_this_process(f"rpmem {__version__}"), where=str(target)),
            where=str(target),
            timeout_s=timeout_s,
            on_failure=_nothing,
        )
        try:
            channel.greet()
            peer = channel.peer
        except LegacySpoken:
            peer = None
        finally:
            channel.abandon()
        found.append("PMDK's rpmemd" if peer is None else f"{peer.software} on {peer.host}")
    return peer is not None


def _nothing(error: RpmemError) -> None:
    """Ignore a failure: the call that waits for the answer reports it."""


def _probe(out: Console, target: Target, session: SessionKeywords) -> None:
    from rpmem import errors
    from rpmem.files.attributes import MAJOR, SIGNATURE, PoolAttributes, random_uuid
    from rpmem.session.start import create, remove

    name = f"rpmem-check-{secrets.token_hex(4)}.set"
    memory = bytearray(_SIZE)
    attributes = PoolAttributes(
        signature=SIGNATURE, major=MAJOR, poolset_uuid=random_uuid(), uuid=random_uuid()
    )
    with _step(out, f"create {name} and connect to it") as found:
        replica = create(target, name, memory, attributes=attributes, parts=1, **session)
        found += [replica.provider, replica.step, f"{replica.nlanes} lanes"]
        found += [f"encryption {replica.encryption}"]
    out.print(f"  note    lanes go over {replica.provider}: {replica.choice}")
    try:
        with _step(out, "make bytes durable and read them back") as found:
            found += _exchange(replica, memory)
        out.print(
            f"  note    the target's medium is {replica.medium}: acknowledged data is "
            f"{replica.level} there"
        )
    finally:
        with _step(out, f"remove {name}"):
            replica.close(remove=True)
            try:
                remove(
                    target,
                    name,
                    force=True,
                    pool_set=True,
                    launcher=session["launcher"],
                    timeout=session["timeout"],
                )
            except errors.PoolSetNotFound:
                return


def _exchange(replica: Replica, memory: bytearray) -> list[str]:
    from rpmem.errors import RemoteError

    times = []
    for turn in range(_ROUNDS):
        memory[_OFFSET : _OFFSET + 64] = bytes([turn % 256]) * 64
        started = time.perf_counter()
        replica.persist(_OFFSET, 64)
        times.append(time.perf_counter() - started)
    memory[_OFFSET:] = secrets.token_bytes(len(memory) - _OFFSET)
    replica.persist(_OFFSET, len(memory) - _OFFSET)
    back = bytearray(len(memory) - _OFFSET)
    replica.read(back, _OFFSET)
    if back != memory[_OFFSET:]:
        raise RemoteError(
            "the bytes read back are not those that were made durable", where=str(replica.target)
        )
    return [f"64 B in {sorted(times)[len(times) // 2] * 1e6:.0f} us"]
