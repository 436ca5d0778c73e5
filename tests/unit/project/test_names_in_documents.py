"""The names in the pages are those of the code: errors, calls, verbs, targets, files, links.

A check takes the pages' text by name and returns the mistakes; the last test shows that each check
finds a mistake.
"""

from __future__ import annotations

import ast
import builtins
import re

import pytest

import rpmem
from rpmem import errors
from rpmem.cli import VERBS
from rpmem.session.replica import _MEDIA, LEVELS
from tests.support.pages import PAGES, ROOT, page, source, table, ticked

TEXTS = {name: page(name) for name in PAGES} | {"Makefile": source("Makefile")}

ERRORS = {kind.__name__: kind for kind in errors.KINDS.values()}
_LIKE_AN_ERROR = re.compile(
    r"[A-Z]\w*(?:Error|Lost|Refused|Failed|Failure|NotFound|Exists|Busy|Denied|Unavailable|Exceeded"
    r"|Missing|Malformed|Unknown|Replica|Mismatch|Space|Full|Corrupt|Extension|TooSmall)"
)
# Classes and messages that are called like errors and are none.
_NO_ERRORS = {"Replica", "Failure", "Error", "SessionFailed"}


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


# --- the pages about the code --------------------------------------------------------------------

ARCHITECTURE, GUIDE, THREADS = (
    f"docs/{name}.md" for name in ("architecture", "fabric-guide", "thread-safety")
)


def tables(text):
    """Every table of a page: its header, and its rows."""
    for block in re.findall(r"(?:^\|.*\n)+", text, re.M):
        header, _, *rows = block.splitlines()
        yield (
            [cell.strip() for cell in header.strip("|").split("|")],
            [[cell.strip() for cell in row.strip("|").split("|")] for row in rows],
        )


def defines(file, name):
    """Whether a source file defines a function or class of that name, in Python, Cython or C."""
    text = source(file)
    definition = rf"^ *(?:(?:async )?def|class|cp?def|static)\b[^=(:\n]*\b{name}\b *[(:]"
    return re.search(definition, text, re.M) is not None


def walks(texts):
    """Every function of a walk is in the file that it is said to be in."""
    named = re.findall(r"`([\w/]+\.\w+)` \(`(\w+)`\)", texts[ARCHITECTURE])
    for header, rows in tables(texts[ARCHITECTURE]):
        if header[:2] == ["file", "function"]:
            named += [(ticked(row[0])[0], name) for row in rows for name in ticked(row[1])]
    assert len(named) > 90
    return {pair for pair in named if not (ROOT / pair[0]).is_file() or not defines(*pair)}


def words_of_the_code(texts):
    """Every name in the pages about the code, and in the records, is somewhere in the code."""
    code = "".join(
        path.read_text(errors="replace")
        for folder in ("rpmem", "rpmemd", "scripts", "tests/support")
        for path in sorted((ROOT / folder).rglob("*"))
        if path.suffix in (".py", ".pyx", ".pxd", ".pyi", ".h", "")
        and path.is_file()
        and "__pycache__" not in path.parts
    )
    known = set(re.findall(r"\w+", code))
    decisions = [name for name in texts if name.startswith("docs/decisions/")]
    wrong = set()
    for page_name in (ARCHITECTURE, GUIDE, THREADS, *decisions):
        for word in ticked(texts[page_name]):
            if re.fullmatch(r"[\w.]+(\(.*\))?", word):
                wrong |= {
                    f"{page_name}: {part}"
                    for part in re.findall(r"[A-Za-z_]\w+", word)
                    if part not in known and part not in _OF_OTHERS
                }
    return wrong


#: Names in them that the code has no use for.
_OF_OTHERS = {"inspect"}

_STUBS = {
    "Fabric": ("libfabric/fabric", "verbs/fabric"),
    "Domain": ("libfabric/memory", "verbs/memory"),
    "Memory": ("libfabric/memory", "verbs/memory"),
    "Queue": ("libfabric/queue", "verbs/queue"),
    "FabricLane": ("libfabric/lane", "verbs/lane"),
    "Listener": ("libfabric/listener", "verbs/listener"),
    "Request": ("libfabric/request", "verbs/request"),
}

#: The classes that those of both fabrics derive from.
_BASES = {
    "Fabric": (("fabric/shared/connecting", "Connector"),),
    "FabricLane": (("wire/lane", "Lane"), ("fabric/shared/lane", "ConnectedLane")),
    "Listener": (("fabric/shared/connecting", "Acceptor"),),
}


def members(stub, kind):
    """The public members of a class in a stub file."""
    for node in ast.parse(source(f"{stub}.pyi")).body:
        if isinstance(node, ast.ClassDef) and node.name == kind:
            return {
                getattr(item, "name", None) or item.target.id
                for item in node.body
                if isinstance(item, ast.FunctionDef | ast.AnnAssign)
            } - {"__init__", "__new__"}
    raise AssertionError(f"{stub} has no {kind}")


def fabric_members(texts):
    """The guide lists what both fabrics have, and nothing that neither has."""
    listed = [
        {ticked(row[0])[0] for row in rows}
        for header, rows in tables(texts[GUIDE])
        if header[0] == "member"
    ]
    wrong = set()
    for (kind, stubs), said in zip(_STUBS.items(), listed, strict=True):
        one, other = (members(f"rpmem/fabric/{stub}", kind) for stub in stubs)
        base = set().union(*(members(f"rpmem/{place}", of) for place, of in _BASES.get(kind, ())))
        wrong |= {f"{kind}.{name}" for name in ((one & other) | base) - said}
        wrong |= {f"{kind}.{name}" for name in said - (one | other | base)}
    return wrong


_SPECIAL = {
    f"__{name}__" for name in ("getitem", "delitem", "contains", "iter", "len", "enter", "exit")
}


def public(kind):
    """The names of a class that its users call."""
    return {name for name in dir(kind) if name in _SPECIAL or name[0] != "_"}


def thread_safety(texts):
    """Every public call has one line about threads, and no line is about anything else."""
    classes = ("Pool", "Replica", "Region")
    kinds = {f"rpmem.{name}": public(getattr(rpmem, name)) for name in classes}
    kinds["rpmem"] = set(rpmem.__all__) - ERRORS.keys() - {*classes, "errors", "__version__"}
    stub = "rpmem/memkind/kinds"
    kinds["rpmem.memkind"] = {"available", "pmem"} | {
        name
        for name in members(stub, "Kind") | members(stub, "FileKind")
        if name in _SPECIAL or not name.startswith("_")
    }
    sections = dict(re.findall(r"^## (\S+)\n(.*?)(?=^## |\Z)", texts[THREADS], re.M | re.S))
    wrong = sections.keys() ^ kinds.keys()
    for name in sections.keys() & kinds.keys():
        (rows,) = (rows for _, rows in tables(sections[name]))
        said = [word for row in rows for word in ticked(row[0])]
        wrong |= {f"{name}: {word}" for word in kinds[name] ^ set(said)}
        wrong |= {f"{name}: {word}" for word in said if said.count(word) > 1}
        wrong |= {row[1] for row in rows} - {"yes", "in turn", "one thread"}
    return wrong


def glossary(texts):
    """Words in their order, each once; steps and levels as the code has them."""
    rows = table(texts["docs/glossary.md"], "word", "meaning")
    words = [row[0] for row in rows]
    meanings = dict(rows)
    wrong = [] if words == sorted(set(words)) else [words]
    steps = set(re.findall(r'if name == "([\w-]+)"', source("rpmem/steps/native.pyx")))
    return wrong + [
        word
        for word, real in (
            ("step", steps),
            ("level", set(LEVELS)),
            ("medium", {*_MEDIA, "unknown"}),
        )
        if set(ticked(meanings[word])) != real
    ]


CHECKS = (
    errors_named,
    exit_statuses,
    api_named,
    verbs,
    targets_of_make,
    files_named,
    links,
    walks,
    words_of_the_code,
    fabric_members,
    thread_safety,
    glossary,
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
    (walks, ARCHITECTURE, "`engine_begin`, `enter`", "`engine_start`, `enter`"),
    (walks, ARCHITECTURE, "`rpmemd/lane_server.py` (`_on_drop`)", "`rpmemd/service.pyx` (`_drop`)"),
    (words_of_the_code, GUIDE, "`fi_trywait`", "`fi_trysleep`"),
    (words_of_the_code, "docs/decisions/0003-two-queues.md", "`fabric_poll`", "`fabric_polls`"),
    (fabric_members, GUIDE, "| `post_receives` |", "| `post` |"),
    (fabric_members, GUIDE, "| `paces` | whether", "| `pace` | whether"),
    (
        thread_safety,
        THREADS,
        "`persist_many`, `deep_persist` | yes | wait;",
        "`persist_many` | yes | wait;",
    ),
    (thread_safety, THREADS, "| `set_attributes` | in turn |", "| `set_attributes` | maybe |"),
    (glossary, "docs/glossary.md", "| torn |", "| broken |"),
    (glossary, "docs/glossary.md", "`commit`, `send-after-write`", "`commit`, `send`"),
)


@pytest.mark.parametrize(
    ("check", "name", "old", "new"), MISTAKES, ids=lambda value: getattr(value, "__name__", "")
)
def test_a_mistake_is_seen(check, name, old, new):
    assert old in TEXTS[name]
    assert check(TEXTS | {name: TEXTS[name].replace(old, new, 1)})


def test_every_check_was_seen_to_fail():
    assert {check for check, *_ in MISTAKES} == set(CHECKS)
