"""Errors: stable codes, readable sentences, Python's own kinds, and what comes from a peer."""

from __future__ import annotations

import copy
import errno as errno_module
import os
import pathlib
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

import rpmem
from rpmem import errors
from rpmem.base import remedies
from rpmem.base.printable import printable

# A code is a promise: it is on the wire and in users' programs. Extend this list, never edit it.
PROMISED = {
    "encryption-refused": (errors.EncryptionRefused, errno_module.EACCES, Exception),
    "usage": (errors.UsageError, errno_module.EINVAL, ValueError),
    "range": (errors.RangeError, errno_module.EINVAL, IndexError),
    "buffer": (errors.BufferRefused, errno_module.EINVAL, TypeError),
    "lane": (errors.LaneRefused, errno_module.EINVAL, ValueError),
    "closed": (errors.ClosedError, errno_module.EBADF, ValueError),
    "forked": (errors.ForkedError, errno_module.EBADF, ValueError),
    "target-syntax": (errors.TargetSyntaxError, errno_module.EINVAL, ValueError),
    "config": (errors.ConfigError, errno_module.EINVAL, ValueError),
    "launch": (errors.LaunchError, errno_module.ECONNRESET, ConnectionError),
    "host-unknown": (errors.HostUnknown, errno_module.EHOSTUNREACH, ConnectionError),
    "connection-refused": (
        errors.ConnectionRefused,
        errno_module.ECONNREFUSED,
        ConnectionRefusedError,
    ),
    "host-key-unknown": (errors.HostKeyUnknown, errno_module.EACCES, ConnectionError),
    "authentication-failed": (errors.AuthenticationFailed, errno_module.EACCES, ConnectionError),
    "daemon-missing": (errors.DaemonMissing, errno_module.ENOENT, ConnectionError),
    "noise-before-protocol": (errors.NoiseBeforeProtocol, errno_module.EPROTO, ConnectionError),
    "launch-failed": (errors.LaunchFailed, errno_module.ECONNRESET, ConnectionError),
    "protocol": (errors.ProtocolError, errno_module.EPROTO, Exception),
    "version-mismatch": (errors.VersionMismatch, errno_module.EPROTONOSUPPORT, Exception),
    "malformed-message": (errors.MalformedMessage, errno_module.EPROTO, Exception),
    "unexpected-message": (errors.UnexpectedMessage, errno_module.EPROTO, Exception),
    "poolset": (errors.PoolSetError, errno_module.EINVAL, Exception),
    "poolset-not-found": (errors.PoolSetNotFound, errno_module.ENOENT, FileNotFoundError),
    "poolset-malformed": (errors.PoolSetMalformed, errno_module.EINVAL, Exception),
    "poolset-too-small": (errors.PoolSetTooSmall, errno_module.EFBIG, Exception),
    "poolset-busy": (errors.PoolSetBusy, errno_module.EBUSY, Exception),
    "poolset-exists": (errors.PoolSetExists, errno_module.EEXIST, FileExistsError),
    "poolset-denied": (errors.PoolSetDenied, errno_module.EACCES, PermissionError),
    "poolset-name-refused": (errors.PoolSetNameRefused, errno_module.EINVAL, Exception),
    "no-space": (errors.NoSpace, errno_module.ENOSPC, Exception),
    "attributes-refused": (errors.AttributesRefused, errno_module.EINVAL, Exception),
    "not-proven-newest": (errors.NotProvenNewest, errno_module.ESTALE, Exception),
    "copy-corrupt": (errors.CopyCorrupt, errno_module.EILSEQ, Exception),
    "header": (errors.HeaderError, errno_module.EINVAL, errors.PoolSetError),
    "fabric": (errors.FabricError, errno_module.EIO, Exception),
    "provider-unavailable": (errors.ProviderUnavailable, errno_module.ENOMEDIUM, Exception),
    "registration-failed": (errors.RegistrationFailed, errno_module.ENOMEM, Exception),
    "connect-failed": (errors.ConnectFailed, errno_module.ECONNREFUSED, ConnectionError),
    "fabric-failure": (errors.FabricFailure, errno_module.EIO, Exception),
    "replica-lost": (errors.ReplicaLost, errno_module.ECONNRESET, ConnectionError),
    "deadline-exceeded": (errors.DeadlineExceeded, errno_module.ETIMEDOUT, TimeoutError),
    "flush-failed": (errors.FlushFailed, errno_module.EIO, Exception),
    "remote": (errors.RemoteError, errno_module.EREMOTEIO, Exception),
    "stale-replica": (errors.StaleReplica, errno_module.ESTALE, Exception),
    "split-brain": (errors.SplitBrain, errno_module.EUCLEAN, Exception),
    "epoch-refused": (errors.EpochRefused, errno_module.ESTALE, Exception),
    "catalogue": (errors.CatalogueError, errno_module.EINVAL, Exception),
    "array-exists": (errors.ArrayExists, errno_module.EEXIST, Exception),
    "array-not-found": (errors.ArrayNotFound, errno_module.ENOENT, KeyError),
    "dtype-refused": (errors.DtypeRefused, errno_module.EINVAL, TypeError),
    "pool-full": (errors.PoolFull, errno_module.ENOSPC, Exception),
    "catalogue-corrupt": (errors.CatalogueCorrupt, errno_module.EUCLEAN, Exception),
    "missing-extension": (errors.MissingExtension, errno_module.ENOSYS, ImportError),
}

every_kind = pytest.mark.parametrize("kind", errors.KINDS.values(), ids=lambda k: k.__name__)


@pytest.mark.parametrize("code", PROMISED)
def test_codes_are_kept(code):
    kind, number, base = PROMISED[code]
    assert errors.KINDS[code] is kind
    assert kind.errno == number
    assert issubclass(kind, base)
    assert issubclass(kind, errors.RpmemError)


def test_every_kind_is_promised_and_has_a_code_of_its_own():
    assert set(errors.KINDS) == {*PROMISED, "error"}
    assert len({kind.code for kind in errors.KINDS.values()}) == len(errors.KINDS)
    for kind in errors.KINDS.values():
        assert kind is errors.RpmemError or "code" in vars(kind)


@every_kind
def test_construction(kind):
    error = kind("it broke", where=pathlib.Path("/a/b"), hint="Mend it", errno=5)
    assert str(error) == "/a/b: it broke. Mend it."
    assert (error.what, error.where, error.hint, error.errno) == ("it broke", "/a/b", "Mend it", 5)
    assert error.args == ("it broke",)
    assert kind("it broke").errno == kind.errno
    assert 0 < kind.exit_status < 126  # shells give 126 and more a meaning


@every_kind
def test_copies_and_pickles(kind):
    error = kind("it broke", where="here", hint="Mend it", errno=5)
    error.__notes__ = ["a note"]
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(twin) is kind
        assert str(twin) == str(error)
        assert (twin.errno, twin.where, twin.hint) == (5, "here", "Mend it")
        assert twin.__notes__ == ["a note"]


@pytest.mark.parametrize(
    ("what", "where", "hint", "text"),
    [
        ("it broke", None, None, "it broke"),
        ("it broke", "here", None, "here: it broke"),
        ("it broke", None, "Mend it", "it broke. Mend it."),
        ("it broke.", "here", "Mend it!", "here: it broke. Mend it!"),
        ("is it broken?", "", "Look", "is it broken? Look."),
    ],
)
def test_sentences(what, where, hint, text):
    assert str(errors.PoolSetBusy(what, where=where, hint=hint)) == text


def test_key_error_is_readable():
    assert str(errors.ArrayNotFound("no array 'a'", where="pool")) == "pool: no array 'a'"


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (OSError(errno_module.EMFILE, "x"), errno_module.EMFILE),
        (OSError(errno_module.ENOENT, "x"), None),
        (MemoryError(), errno_module.ENOMEM),
        (RuntimeError("can't start new thread"), errno_module.EAGAIN),
        (RuntimeError("x"), None),
        (
            ImportError(f"a.so: cannot open: {os.strerror(errno_module.EMFILE)}"),
            errno_module.EMFILE,
        ),
        (ImportError(f"a.so: cannot open: {os.strerror(errno_module.ENOENT)}"), None),
    ],
    ids=str,
)
def test_what_has_run_out(error, number):
    assert remedies.shortage(error) == number


def test_oserror_fields_are_filled():
    error = errors.PoolSetNotFound("no such set", where="/x")
    assert (error.errno, error.strerror, error.filename) == (
        errno_module.ENOENT,
        "no such set",
        "/x",
    )


def test_missing_extension_says_what_to_do():
    assert "make build" in str(errors.MissingExtension("rpmem._core is not built"))
    assert "make build" not in str(errors.MissingExtension("x", hint="Ask your administrator"))


@every_kind
def test_from_code_gives_back_the_kind(kind):
    error = errors.from_code(kind.code, "it broke", where="node2", hint="Mend it", errno=7)
    assert type(error) is kind
    assert str(error) == "node2: it broke. Mend it."
    assert error.errno == 7


def test_unknown_codes_become_remote_errors():
    error = errors.from_code("quantum-decoherence", "the cat died", where="node2", errno=0)
    assert type(error) is errors.RemoteError
    assert error.remote_code == "quantum-decoherence"
    assert error.errno == errno_module.EREMOTEIO
    assert errors.from_code("remote", "x").remote_code is None  # type: ignore[attr-defined]


@given(st.text(), st.text(), st.none() | st.text(), st.none() | st.integers())
def test_from_code_survives_anything(code, what, hint, number):
    error = errors.from_code(code, what, hint=hint, errno=number)
    assert 0 < error.errno <= 4095
    assert str(error).isprintable()
    assert error.what


@given(st.text(), st.integers(3, 50))
def test_printable(text, limit):
    shown = printable(text, limit)
    assert shown.isprintable()
    assert len(shown) <= limit
    if text.isprintable() and len(text.strip()) <= limit:
        assert shown == text.strip()


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno_module.ENOENT, errors.PoolSetNotFound),
        (errno_module.ENOTDIR, errors.PoolSetNotFound),
        (errno_module.EACCES, errors.PoolSetDenied),
        (errno_module.EPERM, errors.PoolSetDenied),
        (errno_module.EROFS, errors.PoolSetDenied),
        (errno_module.EEXIST, errors.PoolSetExists),
        (errno_module.EWOULDBLOCK, errors.PoolSetBusy),
        (errno_module.ENOSPC, errors.NoSpace),
        (errno_module.EDQUOT, errors.NoSpace),
        (errno_module.EIO, errors.PoolSetError),
    ],
)
def test_from_oserror(number, kind):
    error = remedies.from_oserror(OSError(number, "words"), "cannot open the part", where="/x")
    assert type(error) is kind
    assert error.errno == number
    assert str(error).startswith("/x: cannot open the part: ")


@pytest.mark.parametrize("call", ["create", "open"])
def test_who_has_no_replica_yet_is_not_told_to_detach_it(tmp_path, call):
    """A session that ends while it begins: there is nothing to open again, and no pool."""
    words = "printf '\\0\\0\\0\\0'; head -c 16 >/dev/null; exit 3 #"
    with pytest.raises(errors.ReplicaLost) as caught:
        getattr(rpmem, call)(
            f"local:{tmp_path}", "a.set", bytearray(1 << 20), timeout=10.0, command=words
        )
    assert "detach" not in str(caught.value)
    assert "Try again" in str(caught.value)
