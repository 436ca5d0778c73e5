"""What every test shares: a summary that counts what could not run here, and why."""

from __future__ import annotations

import re
import signal
from collections import Counter
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import hypothesis
import pytest

import rpmem
from tests.support import alone, fabrics

# "python -m pytest" in a source tree tests that tree, whatever is installed besides.
TESTED = Path(rpmem.__file__).parent
if not any((TESTED / f"_core{suffix}").exists() for suffix in EXTENSION_SUFFIXES):
    pytest.exit(
        f"the rpmem that would be tested, {TESTED}, is not built for this Python: "
        "make setup, or scripts/build; an installed one is hidden by a source tree",
        returncode=pytest.ExitCode.USAGE_ERROR,
    )

pytest_plugins = ["tests.support.fixtures"]


# How long an example takes says more about the machine's other work than about ours.
hypothesis.settings.register_profile("rpmem", deadline=None, print_blob=True)
hypothesis.settings.load_profile("rpmem")


def pytest_report_header() -> str:
    """Say which rpmem it is."""
    return f"rpmem: {rpmem.__version__} in {TESTED}"


def pytest_configure(config: pytest.Config) -> None:
    """Keep tests that cannot bear company from having any."""
    alone.configure(config)
    # Under cron or nohup it is ignored, and so it would be in every process that a test starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests that run alone last; refuse names that are others in every process."""
    for item in items:
        if re.search(r" at 0x[0-9a-f]{6}", item.nodeid):
            raise pytest.UsageError(f"give the parameters ids: {item.nodeid}")
    alone.arrange(items)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Leave out what needs libfabric, which "make test" by itself does not install."""
    fabrics.skip_without_libfabric(item)


def skip_reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    """Return why a test was skipped, without pytest's own prefix."""
    if isinstance(report.longrepr, tuple):
        return report.longrepr[2].removeprefix("Skipped: ")
    return str(report.longrepr)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say for every reason how many tests it kept from running."""
    reasons = Counter(skip_reason(report) for report in terminalreporter.getreports("skipped"))
    if not reasons:
        return
    terminalreporter.section("not run here")
    for reason, count in reasons.most_common():
        terminalreporter.line(f"{count:5d}  {reason}")
