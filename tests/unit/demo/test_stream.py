"""The demonstration counts what was lost."""

from __future__ import annotations

import subprocess
import sys


def test_the_demo_notices_lost_data(tmp_path):
    """Negative control: what was promised is changed after the fact, and must be missed."""
    code = f"""
import sys
from rpmem.demo import stream
check = stream.Stream.check
def doctored(self, ledger):
    self.model["number"][7] += 1
    return check(self, ledger)
stream.Stream.check = doctored
from rpmem.cli import main
main(["demo", "--size", "16MiB", "--directory", {str(tmp_path)!r}, "--image", "/dev/null"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=90)
    assert done.returncode == 1
    assert " 8 wrong" in done.stdout
