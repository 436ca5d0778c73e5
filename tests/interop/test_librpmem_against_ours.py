"""Programs of PMDK against our daemon."""

from __future__ import annotations

from tests.interop.support.calls import LibrpmemCalls
from tests.interop.support.node import OURS
from tests.interop.support.objects import ObjectPrograms
from tests.interop.support.refusals import LibrpmemRefusals


class TestCalls(LibrpmemCalls):
    daemon = OURS


class TestRefusals(LibrpmemRefusals):
    daemon = OURS


class TestObjects(ObjectPrograms):
    daemon = OURS
