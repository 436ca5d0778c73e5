"""The names in the pages are those of the code: errors, calls, verbs, targets, files, links.

A check takes the pages' text by name and returns what is wrong; the last test shows of each that
it sees a mistake.
"""

from __future__ import annotations

import builtins
import re

import pytest

import rpmem
from rpmem import errors
from rpmem.cli import VERBS
from tests.support.pages import PAGES, ROOT, page, source, table, ticked

TEXTS = {name: page(name) for name in PAGES} | {"Makefile": source("Makefile")}

ERRORS = {kind.__name__: kind for kind in errors.KINDS.values()}
_LIKE_AN_ERROR = re.compile(
    r"[A-Z]\w*(?:Error|Lost|Refused|Failed|Failure|NotFound|Exists|Busy|Denied|Unavailable|Exceeded"
    r"|Missing|Malformed|Unknown|Replica|Mismatch|Space|Full|Corrupt|Extension|TooSmall)"
)
# Classes and messages that are called like errors and are none.
_NO_ERRORS = {"Replica", "Failure", "Error"}


def errors_named(texts):
    """Every error that a page names is one."""
    named = {
        word
        for name in PAGES
        for word in ticked(texts[name])
        if _LIKE_AN_ERROR.fullmatch(word) and word not in _NO_ERRORS
    }
    assert len(named) > 20
    return {n for n in named if n not in ERRORS and not hasattr(builtins, n)}


def exit_statuses(texts):
    """The table of the command's exit statuses: every kind of error, under its own status."""
    written = {}
    for status, kinds in table(texts["docs/concepts.md"], "exit status", "errors"):
        for kind in ticked(kinds):
            written[kind] = int(status)
    real = {name: kind.exit_status for name, kind in ERRORS.items()}
    return {name for name in written.keys() | real.keys() if written.get(name) != real.get(name)}


_API = {"Pool": rpmem.Pool, "pool": rpmem.Pool, "Replica": rpmem.Replica, "replica": rpmem.Replica}


def api_named(texts):
    """Every attribute of a pool or replica, and every name in rpmem, that a page names is there."""
    wrong, count = set(), 0
    for page_name in PAGES:
        for word in ticked(texts[page_name]):
            for owner, name in re.findall(r"\b(rpmem|[Pp]ool|[Rr]eplica)\.([A-Za-z]\w*)", word):
                if word.startswith("-") or "/" in word or name in ("py", "pyx", "set"):
                    continue
                count += 1
                if owner == "rpmem":
                    there = (
                        hasattr(rpmem, name)
                        or (ROOT / "rpmem" / name).is_dir()
                        or any((ROOT / "rpmem").glob(f"{name}.*"))
                    )
                else:
                    kind = _API[owner]
                    shown = kind.__doc__ or ""
                    there = hasattr(kind, name) or re.search(
                        rf"^ +(\w+, )*{name}\b.* : ", shown, re.M
                    )
                if not there:
                    wrong.add(f"{owner}.{name}")
    assert count > 40
    return wrong


def verbs(texts):
    """Every verb of the command that a page uses is one."""
    used = set()
    for name in PAGES:
        if name.startswith("docs/benchmarks"):
            continue  # where "rpmem low" is a contestant
        blocks = re.findall(r"^```(?:sh|text)\n(.*?)^```", texts[name], re.M | re.S)
        lines = [line for block in blocks for line in block.splitlines()] + ticked(texts[name])
        for line in lines:
            if match := re.match(r"(?:\w+\$ +)?rpmem ([a-z]+)\b", line):
                used.add(match[1])
    assert len(used) >= 2
    return used - set(VERBS)


def targets_of_make(texts):
    """Every target of make that a page names is one."""
    there = set(re.findall(r"^([a-z-]+):", texts["Makefile"], re.M))
    named = set()
    for name in PAGES:
        named |= set(re.findall(r"`make ([a-z-]+)", texts[name]))
        for block in re.findall(r"^```sh\n(.*?)^```", texts[name], re.M | re.S):
            named |= set(re.findall(r"^make ([a-z-]+)", block, re.M))
    assert len(named) > 8
    return named - there


def files_named(texts):
    """Every file of ours that a page names is there."""
    wrong = set()
    for name in PAGES:
        for word in ticked(texts[name]):
            inner = re.fullmatch(
                r"((?:rpmem|rpmemd|tests|scripts|docs|examples|benchmarks)/[\w./-]+)(?:::.*)?", word
            )
            if inner and not (ROOT / inner[1]).exists():
                module = ROOT / f"{inner[1]}.pyx"  # as the table of rooms names it
                wrong |= set() if module.exists() else {word}
    return wrong


def links(texts):
    """Every link between pages leads to a page and to a heading of it."""
    wrong = set()
    for name in PAGES:
        folder = (ROOT / name).parent
        for link in re.findall(r"\]\(([^)\s]+)\)", texts[name]):
            if "://" in link:
                continue
            path, _, anchor = link.partition("#")
            file = (folder / path) if path else ROOT / name
            if not file.exists():
                wrong.add(f"{name}: {link}")
            elif anchor:
                heads = re.findall(r"^#+ (.*)$", file.read_text(), re.M)
                slugs = {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}
                if anchor not in slugs:
                    wrong.add(f"{name}: {link}")
    return wrong


CHECKS = (
    errors_named,
    exit_statuses,
    api_named,
    verbs,
    targets_of_make,
    files_named,
    links,
)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_pages_are_true(check):
    assert not check(TEXTS)


CONCEPTS, RPMEMD = "docs/concepts.md", "docs/rpmemd.md"
MISTAKES = (
    (errors_named, CONCEPTS, "`ReplicaLost`", "`TargetLost`"),
    (exit_statuses, CONCEPTS, "| 9 | `MissingExtension` |", "| 8 | `MissingExtension` |"),
    (exit_statuses, CONCEPTS, "`PoolFull`, ", ""),
    (api_named, "README.md", "`pool.detach`", "`pool.give_up`"),
    (api_named, "docs/rdma.md", "`replica.staged`", "`replica.stages`"),
    (api_named, CONCEPTS, "`rpmem.memkind`", "`rpmem.kinds`"),
    (verbs, "README.md", "rpmem check user@node2", "rpmem test user@node2"),
    (targets_of_make, "README.md", "`make demo`", "`make show`"),
    (files_named, "CONTRIBUTING.md", "`rpmemd/lane_server.py`", "`rpmemd/lane.py`"),
    (links, "README.md", "(docs/rdma.md)", "(docs/verbs.md)"),
    (links, RPMEMD, "security.md#confining-a-key", "security.md#confining-keys"),
)


@pytest.mark.parametrize(
    ("check", "name", "old", "new"), MISTAKES, ids=lambda value: getattr(value, "__name__", "")
)
def test_a_mistake_is_seen(check, name, old, new):
    assert old in TEXTS[name]
    assert check(TEXTS | {name: TEXTS[name].replace(old, new, 1)})


def test_every_check_was_seen_to_fail():
    assert {check for check, *_ in MISTAKES} == set(CHECKS)
