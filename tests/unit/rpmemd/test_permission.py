"""What the administrator allows of what an initiator offers."""

from __future__ import annotations

import pytest

from rpmem.control.messages import Open
from rpmem.errors import EncryptionRefused, ProviderUnavailable
from rpmemd.config import Config
from rpmemd.permission import allowed_providers

BOTH = ("verbs", "stream")


def allowed(offered, *, encrypt=False, **options):
    request = Open(pool_set="a", lanes=1, providers=offered, message_size=8192, encrypt=encrypt)
    return allowed_providers(request, Config(poolset_dir="/nowhere", **options))


@pytest.mark.parametrize(
    ("encryption", "encrypt", "left"),
    [
        ("allowed", False, BOTH),
        ("allowed", True, BOTH),
        ("required", True, ("stream",)),
        ("off", False, BOTH),
        ("off", True, ("verbs",)),
    ],
)
def test_what_is_left_of_verbs_and_stream(encryption, encrypt, left):
    assert allowed(BOTH, encrypt=encrypt, encryption=encryption) == left


@pytest.mark.parametrize(
    ("encryption", "encrypt", "offered", "words"),
    [
        ("required", False, BOTH, "only encrypted"),
        ("required", False, ("socketpair", "stream"), "only encrypted"),
        ("off", True, ("stream",), "not to encrypt"),
        ("allowed", True, ("tcp", "verbs"), "tcp, verbs cannot be encrypted"),
    ],
)
def test_nothing_is_left(encryption, encrypt, offered, words):
    with pytest.raises(EncryptionRefused, match=words):
        allowed(offered, encrypt=encrypt, encryption=encryption)


def test_the_names_that_are_allowed():
    offered = ("verbs", "socketpair", "stream", "tcp")
    assert allowed(offered, providers=()) == offered
    assert allowed(offered, providers=("tcp", "stream")) == offered[1:]
    with pytest.raises(ProviderUnavailable, match="over sockets, and was offered stream") as caught:
        allowed(("stream",), providers=("sockets",))
    assert "provider='sockets'" in str(caught.value)
