"""What an initiator says that it can do, and what becomes of one that cannot."""

from __future__ import annotations

import pytest

from rpmem import errors
from rpmem.control import messages
from rpmem.session import start as session
from tests.support import unregistering_rpmemd
from tests.support.fabrics import needs_libfabric
from tests.support.targets import Node

SIZE = 4 << 20


@needs_libfabric
def test_an_initiator_that_does_not_know_staging_is_refused(tmp_path, monkeypatch):
    node = Node.local(tmp_path / "there", command=unregistering_rpmemd.command(SIZE))

    class Ignorant:
        @staticmethod
        def of_this_process(software, features=()):
            return messages.Hello.of_this_process(software)

    monkeypatch.setattr(session, "Hello", Ignorant)
    with pytest.raises(errors.RegistrationFailed, match="cannot be registered"):
        node.create(bytearray(SIZE), provider="tcp")
    assert node.files() == []
