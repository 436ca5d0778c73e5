"""The pages: their programs run, their commands exist, their links lead somewhere."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.pages import blocks
from tests.support.pages import page as text_of

ROOT = Path(__file__).resolve().parents[2]
PAGES = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/concepts.md", "docs/security.md"]
PAGES += ["docs/rpmemd.md", "docs/protocol.md", "docs/persisting.md", "docs/recovery.md"]
NODE = "user@node2"


def commands(page: str) -> list[str]:
    lines = "".join(blocks(page, "sh")).splitlines()
    return [line.partition("#")[0].strip() for line in lines if line.strip()]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory; the pools of ``local:`` lie in another."""
    home = tmp_path / "home"
    home.mkdir()
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.setenv("HOME", str(home))
    yield work
    assert list(home.iterdir()) == [], "a page leaves files in the home directory"


def run(argv: list[str], place: Path) -> str:
    scripts = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{scripts}:{os.environ['PATH']}"}
    done = subprocess.run(
        argv, cwd=place, env=environment, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
    return done.stdout


def python(program: str, place: Path) -> str:
    return run([sys.executable, "-W", "error", "-c", program], place)


@pytest.mark.parametrize("page", PAGES)
def test_what_is_made_can_be_made(page):
    makefile = (ROOT / "Makefile").read_text()
    known = set(re.findall(r"^([a-z-]+):", makefile, re.M))
    wanted = set(re.findall(r"`make ([a-z-]+)", text_of(page)))
    wanted |= {line.split()[1] for line in commands(page) if line.startswith("make ")}
    assert wanted <= known


def anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ +(.*)$", page.read_text(), re.M)
    return {re.sub(r"[^\w -]", "", title).strip().lower().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    here = ROOT / page
    for link in re.findall(r"\]\(([^)\s]+)\)", text_of(page)):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = here.parent / path if path else here
        assert target.exists(), f"{page} links to {link}"
        assert not anchor or anchor in anchors(target), f"{page} links to {link}"


def test_every_page_is_in_the_readme():
    readme = text_of("README.md")
    for page in [*PAGES[1:], *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]:
        assert f"]({page})" in readme, f"add {page} to the README's table of documentation"


def test_paths_named_in_pages_exist():
    path = re.compile(r"`((?:rpmemd?|tests|benchmarks|scripts|docs)/[\w/]*(?:/|\.\w+))`")
    for page in PAGES:
        for name in path.findall(text_of(page)):
            assert (ROOT / name).exists(), f"{page} names {name}"


def test_errors_and_calls_named_in_pages_exist():
    import rpmem

    for page in PAGES:
        text = text_of(page)
        for name in re.findall(r"`rpmem\.(\w+)`", text):
            assert name == "memkind" or hasattr(rpmem, name), f"{page} names rpmem.{name}"
        for name in re.findall(r"`pool\.(\w+)[(`]", text):
            assert hasattr(rpmem.Pool, name), f"{page} names pool.{name}"
        for name in re.findall(r"`replica\.(\w+)[(`]", text):
            made = vars(rpmem.Replica)["__init__"].__code__.co_names
            assert hasattr(rpmem.Replica, name) or name in made, f"{page} names replica.{name}"


def test_the_program_about_arrays(place):
    (program,) = blocks("docs/concepts.md", "python")
    assert "99.5, b'urgent'" in python(program, place)


def test_the_first_program_and_what_removes_it(place):
    first, *_ = blocks("README.md", "python")
    code = [line for line in first.splitlines() if line and not line.lstrip().startswith("#")]
    assert len(code) <= 12
    shown = python(first, place)
    assert re.fullmatch(r"\['field'\] (19|20)\.\d+\n", shown)
    home = Path(os.environ["HOME"])
    assert sorted(path.name for path in home.iterdir()) == ["run.set", "run.set.part0"]
    for command in commands("README.md"):
        if command.startswith("rpmem "):
            run(shlex.split(command), place)
    assert list(place.iterdir()) == []


#: Before a program: prints how many pages each persist() without a range finds changed.
COUNTING = """
import logging, re, sys
class Counts(logging.Handler):
    def emit(self, record):
        if found := re.match(r"(\\d+) pages (differ|were stored to)", record.getMessage()):
            print("changed:", found[1])
logging.getLogger("rpmem").addHandler(Counts())
logging.getLogger("rpmem").setLevel(logging.DEBUG)
"""


def changed(program: str, place: Path) -> list[int]:
    """Run a program that ends well, and return what its calls found changed."""
    return [int(count) for count in re.findall(r"^changed: (\d+)$", python(program, place), re.M)]


def test_of_the_first_program_only_what_changed_travels(place):
    first, *_ = blocks("README.md", "python")
    assert "pool.persist()  # only what changed travels: two pages, of 4096 bytes\n" in first
    whole, row = changed(COUNTING + first, place)
    assert whole > 4_000_000 // 4096
    assert row == 2
    run(["rpmem", "remove", "--pool-set", "local:", "run.set"], place)


def test_the_program_about_calls(place):
    (program,) = blocks("docs/persisting.md", "python")
    assert re.match(r"3000 rows, changes found by (kernel|digest)\n", python(program, place))
    run(["rpmem", "remove", "--pool-set", "local:", "log.set"], place)
    (place / "log.pool").unlink()
    first, *later = changed(COUNTING + program, place)
    # 8,000 bytes and 80,000 bytes of rows, and the page of the count, which was named.
    assert first > 8_800_000 // 4096
    assert [20 < count < 28 for count in later] == [True, True]
    run(["rpmem", "remove", "--pool-set", "local:", "log.set"], place)


def test_the_program_for_those_who_come_from_librpmem(place):
    low = blocks("README.md", "python")[-1]
    assert "rpmem.create" in low
    python("import rpmem\n" + low + "assert bytes(back) == b'hello'\n", place)


def key_line() -> str:
    """Return what the README puts in front of a key in authorized_keys."""
    found = re.search(r"echo '(command=.*),restrict ssh-ed25519 AAAA", text_of("README.md"))
    return found[1] + ",restrict"


@pytest.fixture
def confined(sshd) -> Iterator[Path]:
    """A node whose only key is confined as the README says; gives the pool set directory."""
    pools = sshd.home / "pools"
    pools.mkdir()
    keys = sshd.directory / "authorized_keys"
    before = keys.read_text()
    keys.write_text(f"{key_line()} {before}")
    yield pools
    keys.write_text(before)
    for file in pools.iterdir():
        file.unlink()
    pools.rmdir()


def test_the_program_over_ssh_with_a_confined_key(confined, ssh_node, tmp_path):
    over_ssh = next(text for text in blocks("README.md", "python") if NODE in text)
    shown = python("import rpmem\n" + over_ssh.replace(NODE, ssh_node), tmp_path)
    assert re.fullmatch(r"(persistent page|visible volatile|persistent pmem)\n", shown)
    names = sorted(path.name for path in confined.iterdir())
    assert names == ["big.set", "big.set.part0", "big.set.part1"]
    assert "everything works" in run(["rpmem", "check", ssh_node], tmp_path)
    run(["rpmem", "remove", "--pool-set", ssh_node, "big.set"], tmp_path)
    assert list(confined.iterdir()) == []


def test_a_confined_key_opens_nothing_else(confined, sshd, ssh_node):
    before = set(sshd.home.rglob("*"))
    for command in ("id", f"touch {sshd.home}/mine", "rpmemd --poolset-dir /", "rpmemd -c /tmp/x"):
        done = sshd.run(command)
        assert done.returncode != 0 or "uid=" not in done.stdout
        assert "uid=" not in done.stdout
    assert set(sshd.home.rglob("*")) == before
