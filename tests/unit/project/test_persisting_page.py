"""docs/persisting.md agrees with the code: calls, ways to find changes, sizes, bounds."""

from __future__ import annotations

import inspect
import re
from typing import get_args

import pytest

import rpmem
from benchmarks import changes
from rpmem.pool import hashing
from rpmem.pool.tracking import digested, tracking
from tests.support.pages import numbers, page, source, table, ticked

PERSISTING, CONCEPTS, GLOSSARY = "docs/persisting.md", "docs/concepts.md", "docs/glossary.md"
TEXTS = {name: page(name) for name in (PERSISTING, CONCEPTS, GLOSSARY)} | {
    "Pool": rpmem.Pool.__doc__ or ""
}

#: What makes something durable, or says what is to be.
CALLS = {"persist", "persist_many", "flush", "drain", "deep_persist", "touched"}
#: The functions of the parts of the benchmark that have bounds.
PARTS = {
    "a": (changes.measure_kernel, changes._nothing, changes._narrowed),
    "b": (changes.measure_folios,),
    "c": (changes.measure_everything,),
    "d": (changes.measure_digests,),
}


def calls(texts):
    """The table has every call, and every keyword that changes what one sends."""
    said = [word for row in table(texts[PERSISTING], "call") for word in ticked(row[0])]
    named = {re.match(r"\w+", word)[0] for word in said}
    keywords = set(re.findall(r"(\w+)=", " ".join(said)))
    real = {name for name, each in inspect.signature(rpmem.Pool.persist).parameters.items()}
    wrong = (named - keywords) ^ CALLS | keywords ^ (real - {"self", "x"})
    wrong |= {name for name in CALLS if not hasattr(rpmem.Pool, name)}
    also = {word for row in table(texts[CONCEPTS], "call") for word in ticked(row[0])}
    return wrong | ({word for word in said if word.startswith("persist")} - also)


def ways(texts):
    """The ways to find changes, wherever they are listed."""
    real = set(get_args(tracking.Mode))
    said = {
        PERSISTING: [ticked(row[0])[0] for row in table(texts[PERSISTING], "`pool.tracking`")],
        "Pool": re.findall(r'``(?:tracking=)?"(\w+)"``', _paragraph(texts["Pool"])),
    }
    wrong = {name: each for name, each in said.items() if not {w.strip('"') for w in each} >= real}
    meaning = dict(table(texts[GLOSSARY], "word", "meaning"))["tracking"]
    return wrong | ({} if set(ticked(meaning)) == real else {GLOSSARY: meaning})


def _paragraph(text):
    return text[text.index("What changed\n") : text.index("When a replica is lost\n")]


def sizes(texts):
    """What is kept for each page, and how much is copied or hashed at once."""
    text = texts[PERSISTING]
    said = {
        "digest": numbers(
            text, r"(\d+) bytes and four bits per page, which is (\d+) MiB for 1 GiB"
        ),
        "copies": numbers(text, r"and (\d+) MiB for copies"),
        "cores": numbers(text, r"on up to (\d+) cores at once"),
        "page": numbers(text, r"of a page with one new byte, all (\d+) are sent"),
        "block": numbers(text, r"nearly all pages of (\d+) MiB stored to"),
        "row": numbers(text, r"at most (\d+) MiB in pools up to (\d+) GiB"),
    }
    fields = re.search(r"struct digest_t:\n((?: +uint64_t \w+\n)+)", _pxd("digests"))[1]
    size = 8 * fields.count("uint64_t")
    looks = source("rpmem/memory/changes/pagemap.pyx")
    block, group, most = (
        numbers(looks, rf" {name} = (\d+)")[0] for name in ("BLOCK", "GROUP", "MOST_GROUPS")
    )
    real = {
        "digest": (size, size << 30 >> 12 >> 20),
        "copies": (digested.WINDOW >> 20,),
        "cores": (hashing._MOST_THREADS,),
        "page": (4096,),
        "block": (block * 4096 >> 20,),
        "row": (group * block * 4096 >> 20, group * most * block * 4096 >> 30),
    }
    return {name for name in real if said[name] != real[name]}


def _pxd(name):
    return source(f"rpmem/memory/changes/{name}.pxd")


def bounds(texts):
    """The bounds are those that the benchmark judges by, and no part is left out."""
    rows = table(texts[PERSISTING], "part", "what")
    wrong = {row[0] for row in rows} ^ PARTS.keys()
    for part, *_, bound in rows:
        code = "".join(inspect.getsource(each) for each in PARTS.get(part, ()))
        judged = re.findall(r"_ratio\(times, ([\d.]+)\)|/ few\.size, ([\d.]+)\)", code)
        if bound not in {number for pair in judged for number in pair}:
            wrong.add((part, bound))
    return wrong


CHECKS = (calls, ways, sizes, bounds)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_page_is_true(check):
    assert not check(TEXTS)


MISTAKES = (
    (calls, PERSISTING, "| `touched(x)` |", "| `touch(x)` |"),
    (calls, PERSISTING, "| `persist(x, narrow=True)` |", "| `persist(x, slim=True)` |"),
    (calls, CONCEPTS, "| `persist(x, narrow=True)` |", "| `persist(x)` |"),
    (ways, PERSISTING, '| `"digest"` | a digest', '| `"digests"` | a digest'),
    (ways, "Pool", 'With ``"digest"``', 'With ``"digests"``'),
    (ways, GLOSSARY, "`kernel`, `digest` or `off`", "`kernel` or `off`"),
    (sizes, PERSISTING, "16 bytes and four bits", "8 bytes and four bits"),
    (sizes, PERSISTING, "8 MiB for copies", "4 MiB for copies"),
    (sizes, PERSISTING, "on up to 4 cores", "on up to 8 cores"),
    (sizes, PERSISTING, "pages of 2 MiB stored", "pages of 1 MiB stored"),
    (sizes, PERSISTING, "at most 128 MiB", "at most 64 MiB"),
    (bounds, PERSISTING, "| xxh3 of every page | 1.4 |", "| xxh3 of every page | 1.3 |"),
    (bounds, PERSISTING, "| b | pages sent", "| e | pages sent"),
)


@pytest.mark.parametrize(
    ("check", "name", "old", "new"), MISTAKES, ids=lambda value: getattr(value, "__name__", "")
)
def test_a_mistake_is_seen(check, name, old, new):
    assert old in TEXTS[name]
    assert check(TEXTS | {name: TEXTS[name].replace(old, new)})


def test_every_check_was_seen_to_fail():
    assert {check for check, *_ in MISTAKES} == set(CHECKS)
