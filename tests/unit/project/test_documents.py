"""The pages agree with the code: steps, media, levels, options, variables, defaults, names.

A check takes the pages' text by name and returns the mistakes; the last test shows that each check
finds a mistake. docs/protocol.md and docs/compatibility.md have separate tests.
"""

from __future__ import annotations

import itertools
import os
import re

import pytest

from rpmem.base import environment
from rpmem.base.steps import STEPS
from rpmem.fabric.shared import door
from rpmem.pool import superblock
from rpmem.session.lanes import choose_step
from rpmem.session.options import SessionOptions
from rpmem.session.replica import _MEDIA, LEVELS
from rpmem.session.start import _MESSAGE_SIZE, DEFAULT_LANES, DEFAULT_PROVIDER, DEFAULT_SPIN_US
from rpmemd import config, lane_server
from tests.support.pages import PAGES, ROOT, after, numbers, page, source, table, ticked

TEXTS = (
    {name: page(name) for name in PAGES}
    | {
        name: source(name)
        for name in (
            "rpmem/base/environment.py",
            "rpmem/engine/lanegroup.pyx",
            "rpmem/session/replica.py",
            "Makefile",
        )
    }
    | {"rpmemd --help": config.HELP}
)
SPACE = re.compile(r"\s+")


def first_cells(text, *header):
    return {ticked(row[0])[0] for row in table(text, *header)}


# --- steps, media, levels ------------------------------------------------------------------------


def step_names():
    """The steps there are, as the code makes them of their names."""
    return set(STEPS)


def steps(texts):
    """Every table and docstring that lists the steps."""
    named = re.compile(r"``\"([\w-]+)\"``")
    lists = {
        "concepts": first_cells(texts["docs/concepts.md"], "step", "on the wire"),
        "core": set(named.findall(after(texts["rpmem/engine/lanegroup.pyx"], "step : str")[:200])),
        "replica": set(named.findall(after(texts["rpmem/session/replica.py"], "step : str")[:140])),
    }
    wrong = {name: found for name, found in lists.items() if found != step_names()}
    over_rdma = first_cells(texts["docs/rdma.md"], "step", "when")
    if not over_rdma < step_names():
        wrong["rdma"] = over_rdma
    # What the engine makes of the names, and what an initiator takes by itself.
    made = set(re.findall(r'if name == "([\w-]+)"', source("rpmem/steps/native.pyx")))
    if made != step_names():
        wrong["made"] = made
    for row in table(texts["docs/concepts.md"], "step", "on the wire"):
        step, when = ticked(row[0])[0], row[2]
        chosen = choose_step("auto", (step, "send-after-write"), "node2") == step
        if chosen == ("only if you ask" in when):
            wrong[step] = when
    return wrong


def media(texts):
    """Every table of media."""
    real = set(_MEDIA) | {"unknown"}
    concepts = first_cells(texts["docs/concepts.md"], "medium", "what it is")
    readme = {
        ticked(row[1])[0] for row in table(texts["README.md"], "what holds the data", "`medium`")
    }
    return (concepts ^ real) | (readme ^ real)


def levels(texts):
    """The table of levels, which is in their order."""
    written = [
        ticked(row[0])[0] for row in table(texts["docs/concepts.md"], "level", "the bytes are")
    ]
    return [] if tuple(written) == LEVELS else written


def layout(texts):
    """The drawing of a pool."""
    drawn = dict(
        reversed(pair) for pair in re.findall(r"^ ?(\d+) +(\w+)", texts["docs/concepts.md"], re.M)
    )
    real = {
        "header": 0,
        "superblock": superblock.LAYOUT_OFFSET,
        "catalogue": superblock.SLOTS_OFFSET,
    }
    return {name for name, offset in real.items() if drawn.get(name) != str(offset)}


# --- the fabrics ---------------------------------------------------------------------------------

GUIDE = "docs/fabric-guide.md"
COUNTS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def fabric_functions(texts):
    """The functions of a fabric, in their order and counted."""
    struct = re.search(r"struct fabric_ops_t:\n(.*?)\n\n", source("rpmem/wire/lane.pxd"), re.S)[1]
    real = re.findall(r"\(\*(\w+)\)", struct)
    said = re.search(
        r"`fabric_ops_t` \(`rpmem/wire/lane.pxd`\) has (\w+) functions: (.*?)\.",
        texts[GUIDE],
        re.S,
    )
    listed = [ticked(row[0])[0] for row in table(texts[GUIDE], "function", "what it must do")]
    if said[1] != COUNTS[len(real)] or ticked(said[2]) != real or listed != real:
        return [said[0], listed]
    return []


def lane_fields(texts):
    """The fields of a lane, each once."""
    struct = re.search(r"struct lane_t:\n(.*?)\n\n", source("rpmem/wire/lane.pxd"), re.S)[1]
    real = re.findall(r"\b(\w+)(?= *(?:#.*)?$)", re.sub(r" *#.*", "", struct), re.M)
    rows = table(texts[GUIDE], "field of `lane_t`", "set by")
    return set(real) ^ {name for row in rows for name in ticked(row[0])}


# --- options and variables -----------------------------------------------------------------------


def options_of_rpmemd(texts):
    """The table of rpmemd's options: names, short ones, defaults, what a file may say."""
    wrong = []
    described = {}
    for names, default, _ in table(texts["docs/rpmemd.md"], "option", "default"):
        words = [name.split()[0] for name in ticked(names)]
        for short, long in itertools.pairwise(words):
            if len(short) == 2 and config._SHORT_FOR.get(short) != long.removeprefix("--"):
                wrong.append(words)
        for word in words:
            if word.startswith("--"):
                described[word.removeprefix("--")] = (names.endswith("*"), default.strip("`"))
    real = {name.removesuffix("=") for name in config._LONG}
    wrong += described.keys() ^ real
    wrong += [n for n, (star, _) in described.items() if star == (n in config._VALUES)]
    fresh = config.Config(poolset_dir="$HOME")
    for name in described.keys() & config._VALUES.keys():
        value = getattr(fresh, config._VALUES[name][0])
        value = {True: "yes", False: "no", (): "any"}.get(value, value) if value != 0 else value
        if name in ("persist-apm",) and value == 0:
            value = "no"
        if name == "file-mode":
            value = f"{value:04o}"
        if name == "spin-us":
            value = round(lane_server._DEFAULT_SPIN_S * 1e6)
        # Not used until it is asked for.
        if name != "log-file" and described[name][1] != str(value):
            wrong.append((name, described[name][1], value))
    return wrong


def options_beside_pmdks(texts):
    """How many options are ours, and that they stand at the end."""
    rows = table(texts["docs/rpmemd.md"], "option", "default")
    ours = ("protocol", "provider", "encryption", "file-mode", "spin-us", "forced-command")
    (count,) = re.findall(
        r"those of PMDK's rpmemd, and (\w+) more at the end", texts["docs/rpmemd.md"]
    )
    last = tuple(ticked(row[0])[0].split()[0].removeprefix("--") for row in rows[-len(ours) :])
    return [] if (count, last) == (COUNTS[len(ours)], ours) else [count, last]


def help_of_rpmemd(texts):
    """What rpmemd says of itself."""
    text = texts["rpmemd --help"]
    wrong = set(re.findall(r"(?<=[ ,]--)[a-z-]+(?=[ ,])", text)) ^ {
        name.removesuffix("=") for name in config._LONG
    }
    pairs = dict(re.findall(r"(-\w), --([a-z-]+)", text))
    wrong |= {short for short in config._SHORT_FOR if pairs.get(short) != config._SHORT_FOR[short]}
    # All but these may stand in a file.
    first = [name for _, name in re.findall(r"^  (-\w, |    )--([a-z-]+)", text, re.M)]
    assert "first five, help, version and forced-command" in SPACE.sub(" ", text)
    barred = {*first[:4], "help", "version", "forced-command"}
    if first[4] in config._VALUES:
        wrong |= barred & config._VALUES.keys()
    return wrong


def threads_of_rpmemd(texts):
    """How many threads 0 means: in the page, in the help, in the code."""

    def said(text):
        return re.search(r"half.*?cores, (\d) to (\d)", SPACE.sub(" ", text))

    places = {
        "page": said(after(texts["docs/rpmemd.md"], "`--nthreads N`")[:300]),
        "help": said(after(texts["rpmemd --help"], "--nthreads")[:120]),
    }
    wrong = [place for place, match in places.items() if match is None]
    real = threads_at_the_ends()
    return wrong + [m[0] for m in places.values() if m and (int(m[1]), int(m[2])) != real]


def threads_at_the_ends():
    cores = os.cpu_count
    try:
        ends = []
        for count in (1, 1024):
            os.cpu_count = lambda count=count: count
            ends.append(lane_server._threads_for(1024))
        os.cpu_count = lambda: 6
        assert (lane_server._threads_for(1024), lane_server._threads_for(2)) == (3, 2)
    finally:
        os.cpu_count = cores
    return tuple(ends)


def exit_statuses_of_rpmemd(texts):
    """A wrong command line has a status of its own."""
    rows = table(after(texts["docs/rpmemd.md"], "## Exit status"), "", "")
    written = {int(status): what for status, what in rows}
    return [] if "command line is wrong" in written.get(config.BAD_USAGE, "") else [written]


def variables(texts):
    """The table of the environment variables and its defaults."""
    text = texts["rpmem/base/environment.py"]
    rows = re.findall(r"^(RPMEM_\w+)  +(\S+(?: \S+)*)  +\S", text, re.M)
    read = set(re.findall(r'"(RPMEM_\w+)"', text))
    wrong = {name for name, _ in rows} ^ read
    fresh = environment.Environment.read({})
    real = {
        "RPMEM_SSH": fresh.ssh,
        "RPMEM_CMD": "|".join(fresh.commands),
        "RPMEM_ENABLE_SOCKETS": int(fresh.enable_sockets),
        "RPMEM_ENABLE_VERBS": int(fresh.enable_verbs),
        "RPMEM_MAX_NLANES": "no limit" if fresh.max_nlanes == (1 << 32) - 1 else fresh.max_nlanes,
        "RPMEM_WORK_QUEUE_SIZE": "automatic" if fresh.work_queue_size is None else "set",
        "RPMEM_LOG_LEVEL": fresh.log_level,
        "RPMEM_LOG_FILE": "stderr" if fresh.log_path() is None else fresh.log_file,
        "RPMEM_PROVIDER": "best" if fresh.provider is None else fresh.provider,
        "RPMEM_ENCRYPTION": fresh.encryption,
        "RPMEM_LAUNCHER": fresh.launcher,
        "RPMEM_TIMEOUT": f"{fresh.timeout_s:g}",
        "RPMEM_SPIN_US": DEFAULT_SPIN_US if fresh.spin_us is None else fresh.spin_us,
        "RPMEM_PROTOCOL": fresh.protocol,
        "RPMEM_LANE_HOSTS": "none" if fresh.lane_hosts == () else fresh.lane_hosts,
    }
    wrong |= {name for name, default in rows if str(real.get(name)) != default}
    return wrong


def variables_named(texts):
    """Every variable that a page names is read somewhere."""
    known = set()
    for folder in ("rpmem", "rpmemd", "scripts", "tests/rdma", "benchmarks"):
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and path.suffix in ("", ".py", ".pyx"):
                known |= set(re.findall(r"\bRPMEM_[A-Z_]+", path.read_text(errors="replace")))
    known |= set(re.findall(r"\bRPMEM_[A-Z_]+", source("setup.py") + source("pyproject.toml")))
    named = set()
    for name in PAGES:
        if name != "docs/compatibility.md":  # which names librpmem's constants, too
            named |= set(re.findall(r"\bRPMEM_[A-Z_]+", texts[name]))
    return named - known


# --- defaults and limits in the prose ------------------------------------------------------------


def defaults(texts):
    """Numbers that pages mention."""
    concepts, security = texts["docs/concepts.md"], texts["docs/security.md"]
    performance = texts["docs/performance.md"]
    said = {
        "lanes": numbers(concepts, r"\(`nlanes`, (\d+) by default\)"),
        "timeout": numbers(concepts, r"\(`RPMEM_TIMEOUT`, (\d+)\)"),
        "spin": numbers(performance, r"rpmemd\.conf \| (\d+) µs and (\d+) µs"),
        "message": numbers(performance, r"inside messages of (\d+) KiB"),
        "staging": numbers(texts["docs/rdma.md"], r"way of a buffer of (\d+) KiB per lane"),
        "accept": numbers(security, r"if they do not all come within (\d+) s"),
        "door": numbers(security, r"for (\d+) s at most, at most (\d+) of one source"),
        "door in all": numbers(security, r"and (\d+) in all beside as many as lanes"),
        "threads": numbers(performance, r"half as many threads as it has cores, at most (\d+) "),
    }
    real = {
        "lanes": (DEFAULT_LANES,),
        "timeout": (environment.DEFAULT_TIMEOUT_S,),
        "spin": (DEFAULT_SPIN_US, round(lane_server._DEFAULT_SPIN_S * 1e6)),
        "message": (_MESSAGE_SIZE / 1024,),
        "staging": (lane_server._STAGING / 1024,),
        "accept": (lane_server.ACCEPT_TIMEOUT_S,),
        "door": (door.LONGEST_WAIT, door.MOST_OF_ONE),
        "door in all": (door.MOST,),
        "threads": (threads_at_the_ends()[1],),
    }
    wrong = {name for name in real if said[name] != real[name]}
    if f"`{DEFAULT_PROVIDER}` unless you say otherwise" not in concepts:
        wrong.add("provider")
    return wrong


def who_takes_the_lane(texts):
    """Where a call spends its time: the modules are there, and one of them takes the lane."""
    wrong = []
    for where, what, _ in table(texts["docs/performance.md"], "where", "what happens"):
        for module in ticked(where):
            places = [ROOT / "rpmem" / f"{module}.pyx", ROOT / "rpmemd" / f"{module}.pyx"]
            text = "".join(place.read_text() for place in places if place.exists())
            if not text or ("lane is taken" in what) != ("handout_acquire(" in text):
                wrong.append((module, what))
    return wrong


def session_options(texts):
    """The keywords of a session are those of its options."""
    from rpmem.session.options import ReachKeywords, SessionKeywords

    fields = set(SessionOptions.__dataclass_fields__)
    documented = set(re.findall(r"^    (\w+) : ", SessionOptions.__doc__ or "", re.M))
    keywords = {**ReachKeywords.__annotations__, **SessionKeywords.__annotations__}
    return (fields ^ documented) | (fields ^ set(keywords))


# --- the decision records ------------------------------------------------------------------------

RECORDS = [name for name in PAGES if name.startswith("docs/decisions/")]
_PAGE = 45  # lines


def records(texts):
    """Numbered without a gap, of three sections, each on a page."""
    wrong = []
    for number, name in enumerate(RECORDS, 1):
        title, *lines = texts[name].splitlines()
        heads = [line for line in lines if line.startswith("#")]
        if (
            not name.startswith(f"docs/decisions/{number:04}-")
            or not title.startswith(f"# {number}. ")
            or heads != ["## Context", "## Decision", "## Consequences"]
            or len(lines) > _PAGE
        ):
            wrong.append(name)
    return wrong


CHECKS = (
    steps,
    media,
    levels,
    layout,
    fabric_functions,
    lane_fields,
    options_of_rpmemd,
    options_beside_pmdks,
    help_of_rpmemd,
    threads_of_rpmemd,
    exit_statuses_of_rpmemd,
    variables,
    variables_named,
    defaults,
    who_takes_the_lane,
    records,
)


@pytest.mark.parametrize("check", [*CHECKS, session_options], ids=lambda check: check.__name__)
def test_the_pages_are_true(check):
    assert not check(TEXTS)


CONCEPTS, RPMEMD = "docs/concepts.md", "docs/rpmemd.md"
ENVIRONMENT, PERFORMANCE = "rpmem/base/environment.py", "docs/performance.md"
MISTAKES = (
    (steps, CONCEPTS, "| `flush` | writes", "| `flushes` | writes"),
    (steps, "rpmem/engine/lanegroup.pyx", '``"commit"`` or ``"flush"``', '``"commit"``'),
    (steps, "docs/rdma.md", "| `read-after-write` | the", "| `read` | the"),
    (media, CONCEPTS, "| `unknown` | a replica", "| `strange` | a replica"),
    (media, "README.md", "| `volatile` | nothing", "| `nothing` | nothing"),
    (levels, CONCEPTS, "| `visible` | in the", "| `seen` | in the"),
    (layout, CONCEPTS, " 24576   catalogue", " 24577   catalogue"),
    (fabric_functions, GUIDE, "has nine functions", "has seven functions"),
    (fabric_functions, GUIDE, "`flush`, `write_word`", "`flush`"),
    (fabric_functions, GUIDE, "| `wake` | end", "| `wakes` | end"),
    (lane_fields, GUIDE, "| `delivers` |", "| `answers` |"),
    (records, RECORDS[2], "# 3. Two", "# 4. Two"),
    (records, RECORDS[0], "## Consequences", "## Results"),
    (options_of_rpmemd, RPMEMD, "| `-t`, `--nthreads N` | 0 |", "| `-t`, `--nthreads N` | 1 |"),
    (options_of_rpmemd, RPMEMD, "`--spin-us N` | 200", "`--spin-us N` | 100"),
    (options_of_rpmemd, RPMEMD, "| `--forced-command` * |", "| `--forced-command` |"),
    (options_of_rpmemd, RPMEMD, "`-s`, `--pool-set`", "`-p`, `--pool-set`"),
    (options_of_rpmemd, RPMEMD, "| `--use-syslog` | yes |", "| `--use-syslog` | no |"),
    (options_beside_pmdks, RPMEMD, "and six more", "and four more"),
    (help_of_rpmemd, "rpmemd --help", "--spin-us <n>", "--spin <n>"),
    (help_of_rpmemd, "rpmemd --help", "-s, --pool-set", "-p, --pool-set"),
    (threads_of_rpmemd, "rpmemd --help", "half the cores, 1 to 4", "0 for one per lane"),
    (threads_of_rpmemd, RPMEMD, "1 to 4, and no more", "1 to 8, and no more"),
    (exit_statuses_of_rpmemd, RPMEMD, "| 255 | the command", "| 2 | the command"),
    (
        variables,
        "rpmem/base/environment.py",
        "RPMEM_SPIN_US            100  ",
        "RPMEM_SPIN_US     automatic  ",
    ),
    (
        variables,
        "rpmem/base/environment.py",
        "RPMEM_TIMEOUT            30",
        "RPMEM_PATIENCE           30",
    ),
    (variables_named, "README.md", "`RPMEM_CMD`", "`RPMEM_COMMAND`"),
    (defaults, CONCEPTS, "(`nlanes`, 4 by", "(`nlanes`, 8 by"),
    (defaults, PERFORMANCE, "| 100 µs and 200 µs", "| 50 µs and 200 µs"),
    (defaults, "docs/security.md", "for 5 s at most", "for 9 s at most"),
    (who_takes_the_lane, PERFORMANCE, "| `engine/engine` | a free lane", "| `_core` | a free lane"),
)


@pytest.mark.parametrize(
    ("check", "name", "old", "new"), MISTAKES, ids=lambda value: getattr(value, "__name__", "")
)
def test_a_mistake_is_seen(check, name, old, new):
    assert old in TEXTS[name]
    assert check(TEXTS | {name: TEXTS[name].replace(old, new, 1)})


def test_every_check_was_seen_to_fail():
    assert {check for check, *_ in MISTAKES} == set(CHECKS)
