"""What the pages tell people to write is understood: lines for keys, configuration, pool sets."""

from __future__ import annotations

import re
import shlex

import pytest

from rpmem.files import poolset
from rpmemd import config
from tests.support.pages import PAGES, blocks, page


def test_lines_for_authorized_keys_are_understood():
    found = []
    for name in PAGES:
        for line in re.findall(r'command="([^"]*)",restrict', page(name)):
            words = [word for word in shlex.split(line) if not re.match(r"\w+=", word)]
            assert words[0] == "rpmemd"
            found.append(config.read(words[1:], environ={"HOME": "/home/me"}, global_file="/x"))
    assert len(found) >= 3
    assert all(each.forced_command and each.poolset_dir == "/home/me/pools" for each in found)
    assert any(each.protocol == "native" for each in found)


def test_every_option_of_rpmemd_is_described():
    text = page("docs/rpmemd.md")
    options = re.findall(r"--[a-z-]+", config.HELP)
    assert len(options) > 15
    for option in options:
        assert f"`{option}" in text, f"docs/rpmemd.md lacks {option}"


def test_the_configuration_file_is_understood(tmp_path):
    text = page("docs/rpmemd.md")
    file = tmp_path / "rpmemd.conf"
    file.write_text(re.search(r"^(# /etc/rpmemd/rpmemd.conf\n.*?)```", text, re.M | re.S)[1])
    found = config.read(["-c", str(file)], environ={"HOME": "/home/me"})
    assert (found.poolset_dir, found.protocol, found.log_level) == (
        "/home/me/pools",
        "native",
        "notice",
    )


@pytest.mark.parametrize(("name", "parts"), [("README.md", 2), ("docs/rpmemd.md", 2)])
def test_pool_set_files_are_understood(name, parts):
    text = next(block for block in blocks(name, "text") if block.startswith("PMEMPOOLSET"))
    found = poolset.parse(text)
    found.check_for_target()
    assert len(found.parts) == parts
