"""docs/protocol.md agrees with the code: numbers, fields, bounds, steps, statuses.

A check returns the mistakes; the last test shows that each check finds a mistake.
"""

from __future__ import annotations

import re
from errno import errorcode

import pytest

from rpmem.base.steps import STEPS
from rpmem.control import framing, messages, pmdk, pmdk_status, proof
from rpmem.control.fields import Integer, ListOf, OrNone, PoolSetName, Text
from rpmem.control.initiator_machine import InitiatorState
from rpmem.control.messages import Kind
from rpmem.control.target_machine import TargetState
from tests.support.pages import after, numbers, page, source, table, ticked

PAGE = page("docs/protocol.md")

MESSAGES = {
    kind.__name__: kind
    for kind in (*messages._FROM_INITIATOR.values(), *messages._FROM_TARGET.values())
}


def kinds(text):
    """Every message, its number and who sends it."""
    written = {
        (int(number, 16), name, sender)
        for number, name, sender, _ in table(text, "type", "message")
    }
    real = set()
    for number in Kind:
        here, there = number in messages._FROM_INITIATOR, number in messages._FROM_TARGET
        kind = (messages._FROM_INITIATOR if here else messages._FROM_TARGET)[number]
        sender = "both" if here and there else "initiator" if here else "target"
        real.add((int(number), kind.__name__, sender))
    return written ^ real


def features(text):
    """The features that both sides put into their Hellos."""
    written = {ticked(name)[0] for name, _ in table(text, "feature")}
    for file in ("rpmem/session/start.py", "rpmemd/session.py"):
        assert re.findall(r"of_this_process\(f\"[^\"]*\",\s*(\w+)\(\)\)", source(file)) == [
            "features"
        ]
    return written ^ set(messages.FEATURES)


def _power(text):
    return text.replace("2⁶³-1", str((1 << 63) - 1))


def _bounds(rule):
    """Return the bounds of a rule as the page writes them, or None where it has none to write."""
    rule = rule.rule if isinstance(rule, OrNone) else rule
    if isinstance(rule, PoolSetName):
        return 1, rule.LIMIT
    return (rule.low, rule.high) if isinstance(rule, Integer | ListOf) else None


_DEFAULTS = {"none": (), "null": None, '""': "", "false": False}


def _default(text):
    text = text.strip("`")
    return _DEFAULTS.get(text, int(text) if text.isdigit() else text)


def _rows(text, name):
    """Return field, description and default of each field of a message, as the page has it."""
    if name in ("Create", "Open"):
        rows = table(after(text, "**Create** and **Open**"), "field", "")
        column = 2 if name == "Create" else 3
        for fields, what, *rest in rows:
            cell = rest[column - 2]
            if cell == "-":
                continue
            if cell == "required" or (".." in cell and "(default)" not in cell):
                yield ticked(fields)[0], f"{what} {cell}", None
            else:
                default = re.search(r"(\w+) \(default\)", cell)
                yield ticked(fields)[0], f"{what} {cell}", default[1] if default else cell
    else:
        for fields, what, default in table(after(text, f"**{name}**"), "field", ""):
            names = ticked(fields)
            defaults = default.split(",") if len(names) > 1 and default else [default] * len(names)
            for field, each in zip(names, defaults, strict=True):
                yield field, what, each.strip() or None


def fields(text):
    """Fields of the messages that have a table, their bounds and defaults."""
    wrong = []
    for name in ("Hello", "Create", "Open", "Ready", "Seen", "Content", "Listed", "PoolSetRow"):
        kind = MESSAGES.get(name, messages.PoolSetRow)
        rows = list(_rows(text, name))
        if {field for field, _, _ in rows} != set(kind._rules):
            wrong.append((name, {field for field, _, _ in rows} ^ set(kind._rules)))
            continue
        for field, what, default in rows:
            real = kind._defaults.get(field, "required")
            if ("required" if default is None else _default(default)) != real:
                wrong.append((name, field, default, real))
            for low, high in re.findall(r"(\d+)\.\.(\d+)", _power(what)):
                if (int(low), int(high)) != _bounds(kind._rules[field]):
                    wrong.append((name, field, low, high))
    return wrong


def limits_of_prose(text):
    """What is said of the messages without a table."""
    found = {
        "attributes": numbers(text, r"\*\*SetAttributes\*\* has `attributes`, (\d+) bytes"),
        "errno": numbers(text, r"`errno` \((\d+)\.\.(\d+)\)"),
        "text": numbers(text, r"`message` and `hint` \(up to (\d+) characters"),
        "log": numbers(text, r"`level` and `message` \(up to (\d+) characters\)"),
        "hello": numbers(text, r"`features` \| up to (\d+) names"),
        "token": numbers(text, r"`token` \((\d+) bytes"),
    }
    error, log = messages.Error._rules, messages.Log._rules
    assert isinstance(error["message"], Text)
    real = {
        "attributes": (messages.ATTRIBUTES_SIZE,),
        "errno": _bounds(error["errno"]),
        "text": (error["message"].limit,),
        "log": (log["message"].limit,),
        "hello": (messages.Hello._rules["features"].high,),
        "token": (messages.TOKEN_SIZE,),
    }
    return {name for name in real if found[name] != real[name]}


def frames(text):
    """Header and limits of a frame."""
    wrong = []
    if numbers(text, r"A frame is a header of (\d+) bytes") != (framing.HEADER_SIZE,):
        wrong.append("header")
    if framing.MAGIC.hex(" ") not in after(text, "### Frames")[:800]:
        wrong.append("magic")
    written = numbers(
        text,
        r"more than ([\d,]+) bytes \(from the initiator\) or ([\d,]+) bytes \(from the target\)",
    )
    if written != (framing.INITIATOR_LIMIT, framing.TARGET_LIMIT):
        wrong.append(written)
    advisory = re.search(r"Types above (0x\w+) are advisory", text)
    if not advisory or int(advisory[1], 16) != messages.ADVISORY:
        wrong.append("advisory")
    return wrong


def the_proof(text):
    """What a lane shows."""
    part = after(text, "### The proof")
    wrong = []
    if numbers(part, r"carries (\d+) bytes of private data") != (proof.PROOF_SIZE,):
        wrong.append("size")
    packed = proof.pack_proof(7, b"t" * messages.TOKEN_SIZE)
    for offset, field, what in table(part, "offset", "field"):
        here = packed[int(offset) :]
        if field == "magic" and not here.startswith(bytes.fromhex(ticked(what)[0])):
            wrong.append(field)
        if field == "version, u16" and int.from_bytes(here[:2]) != int(what):
            wrong.append(field)
        if field == "lane, u16" and int.from_bytes(here[:2]) != 7:
            wrong.append(field)
        if field == "token" and here != b"t" * numbers(what, r"^(\d+) bytes")[0]:
            wrong.append(field)
    return wrong


def constants(name):
    """Return the numbers of an enum or the like in a .pxd."""
    found = re.findall(r"^    ([A-Z_]+) = (\w+)", source(name), re.M)
    return {constant: int(value, 0) for constant, value in found}


def in_band(text):
    """Kinds, flags, statuses and sizes of the messages on the lanes."""
    real = constants("rpmem/wire/messages.pxd")
    part = after(text, "## In-band messages")
    update = {row[1]: row[2] for row in table(after(part, "An **UPDATE**"), "offset", "field")}
    reply = {row[1]: row[2] for row in table(after(part, "A **reply**"), "offset", "field")}
    bits = dict(re.findall(r"bit (\d) ([A-Z]+)", update["flags, u8"]))
    statuses = dict(re.findall(r"(\d) (done|the medium|a range|a malformed)", reply["status, u8"]))
    written = {
        "MESSAGE_UPDATE": int(update["kind, u8"]),
        "MESSAGE_FETCH": numbers(part, r"A \*\*FETCH\*\*, .*? header with kind (\d+)")[0],
        "MESSAGE_REPLY": int(reply["kind, u8"], 16),
        "UPDATE_ANSWER": next(1 << int(bit) for bit, name in bits.items() if name == "ANSWER"),
        "UPDATE_DEEP": next(1 << int(bit) for bit, name in bits.items() if name == "DEEP"),
        "WRITTEN_SHIFT": numbers(part, r"bit (\d+) set: the bytes were WRITTEN")[0],
    }
    names = {
        "done": "REPLY_DONE",
        "the medium": "REPLY_FLUSH_FAILED",
        "a range": "REPLY_BAD_RANGE",
        "a malformed": "REPLY_BAD_MESSAGE",
    }
    written |= {names[what]: int(number) for number, what in statuses.items()}
    return set(written.items()) ^ set(real.items())


def step_names():
    """Return the steps that there are."""
    return set(STEPS)


def steps(text):
    """The steps and what each sends."""
    return {ticked(row[0])[0] for row in table(text, "step", "a relaxed range")} ^ step_names()


def who_does_io(text):
    """The files that read and write for the state machines."""
    match = re.search(r"bytes in, events out\.([^.]|\.py)*do the reading and writing", text)
    assert match
    written = {name for name in ticked(match[0]) if name.endswith(".py")}
    machines = {"rpmem/session/channel.py", "rpmemd/session.py"}
    for name in machines | written:
        if "data_to_send()" not in source(name):
            return {name}
    return written ^ machines


def statuses(text):
    """PMDK's statuses, what gives them and what they become."""
    wrong = []
    for name, gives, becomes in table(text, "status", "target: error that gives it"):
        number, word = name.split()
        status = pmdk_status.Status(int(number))
        kind, errno, _ = pmdk_status._MEANING[status]
        if status.name != word:
            wrong.append(name)
        short = re.sub(r" \(.*?\)", "", becomes)
        if short != f"{kind.__name__}, {errorcode[errno]}":
            wrong.append((name, becomes))
        real = {kind.__name__ for kind, each in pmdk_status._OF_KIND if each is status}
        real |= {errorcode[each] for each, of in pmdk_status._OF_ERRNO.items() if of is status}
        written = set() if gives in ("-", "everything else") else set(gives.split(", "))
        # EWOULDBLOCK is another name of EAGAIN.
        written = {each.replace("EWOULDBLOCK", "EAGAIN") for each in written}
        if written != real:
            wrong.append((name, gives, real))
    if len(table(text, "status", "target: error that gives it")) != len(pmdk_status.Status) - 1:
        wrong.append("rows")
    return wrong


def pmdk_sizes(text):
    """The sizes of PMDK's messages, requests without the name, and what is offered in them."""
    part = after(text, "## PMDK 0.1")
    wrong = []
    for types, _, size in table(part, "type", "message", "size"):
        request, answer = (pmdk.Kind(int(number)) for number in types.split(", "))
        asked, answered = size.split(", ")
        smallest, largest = pmdk.REQUEST_SIZES[request]
        # A name has a byte at least, and its NUL.
        named = re.fullmatch(r"(\d+)( \+ L)?", asked)
        if bool(named[2]) != (smallest != largest) or int(named[1]) > smallest:
            wrong.append((types, asked))
        if not named[2] and int(named[1]) != smallest:
            wrong.append((types, asked))
        if (
            named[2]
            and len(pmdk.encode_request(_request(request))) != int(named[1]) + len("a.set") + 1
        ):
            wrong.append((types, asked))
        if int(answered) != pmdk.ANSWER_SIZES[answer]:
            wrong.append((types, answered))
    if numbers(part, r"inline data limit u64 \((\d+)\)") != (pmdk.MESSAGE_SIZE,):
        wrong.append("inline")
    return wrong


def _request(kind):
    common = {"pool_set": "a.set", "pool_size": 1, "lanes": 1, "providers": ("sockets",)}
    made = messages.Create if kind is pmdk.Kind.CREATE else messages.Open
    return made(**common, message_size=pmdk.MESSAGE_SIZE)


def pmdk_in_band(text):
    """The modes of PMDK's requests on the lanes, and their layout."""
    real = constants("rpmem/wire/pmdk_messages.pxd")
    rows = {
        row[1]: (int(row[0]), row[2]) for row in table(after(text, "### PMDK's messages"), "offset")
    }
    modes = dict(re.findall(r"(\d) (flush|the same|the data)", rows["flags, u32"][1]))
    written = {
        "PMDK_FLUSH_WRITE": next(int(n) for n, what in modes.items() if what == "flush"),
        "PMDK_DEEP_PERSIST": next(int(n) for n, what in modes.items() if what == "the same"),
        "PMDK_PERSIST_SEND": next(int(n) for n, what in modes.items() if what == "the data"),
        "PMDK_MODE_MASK": 3 if "the low two bits" in rows["flags, u32"][1] else 0,
    }
    offsets = [
        rows[field][0] for field in ("flags, u32", "lane, u32", "address, u64", "size, u64", "data")
    ]
    return (set(written.items()) ^ set(real.items())) | (
        {"offsets"} if offsets != [0, 4, 8, 16, 24] else set()
    )


def states(text):
    """The states of a target, all of them and none else."""
    drawn = after(text, "### States")
    named = set(re.findall(r"\b[A-Z]{4,}\b", drawn[: drawn.index("A refused Create")]))
    initiators = {state.name for state in InitiatorState}
    real = {state.name for state in TargetState}
    return (real - named) | (named - real - initiators)


CHECKS = (
    kinds,
    features,
    fields,
    limits_of_prose,
    frames,
    the_proof,
    in_band,
    steps,
    who_does_io,
    statuses,
    pmdk_sizes,
    pmdk_in_band,
    states,
)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_page_is_true(check):
    assert not check(PAGE)


MISTAKES = (
    (kinds, "| 0x8002 | Failure | target | |\n", ""),
    (kinds, "| 0x0005 | Close | initiator", "| 0x0008 | Close | initiator"),
    (kinds, "| 0x4002 | Done | target", "| 0x4002 | Done | both"),
    (features, "| `staging` | a pool", "| `stages` | a pool"),
    (features, "   | --- | --- |\n", "   | --- | --- |\n   | `other` | more |\n"),
    (fields, "| `window` | in-band messages a lane may have unanswered, 1..4096 | 1 |\n", ""),
    (fields, "unanswered, 1..4096 | 1 |", "unanswered, 1..4096 | 2 |"),
    (fields, "1..16 fabric providers", "1..8 fabric providers"),
    (fields, "| 1..2⁶³-1 | 0..2⁶³-1; 0", "| 0..2⁶³-1 | 0..2⁶³-1; 0"),
    (fields, "| `auto` | `auto` |", "| required | `auto` |"),
    (limits_of_prose, "(up to 4000 characters)", "(up to 2000 characters)"),
    (limits_of_prose, "`errno` (0..4095)", "`errno` (1..4095)"),
    (frames, "1,048,576", "65,536"),
    (frames, "52 50 4d 66", "52 50 4d 67"),
    (the_proof, "carries 40 bytes", "carries 56 bytes"),
    (the_proof, "| 32 bytes, of this lane", "| 16 bytes, of this lane"),
    (in_band, "| 0 | kind, u8 | 0x81 |", "| 0 | kind, u8 | 0x82 |"),
    (in_band, "bit 1 DEEP", "bit 2 DEEP"),
    (in_band, "2 a range outside", "4 a range outside"),
    (steps, "| `commit` | WRITE with", "| `committed` | WRITE with"),
    (who_does_io, "`rpmem/session/channel.py`", "`rpmem/session/replica.py`"),
    (statuses, "| 9 EXISTS |", "| 9 EXIST |"),
    (statuses, "PoolSetNotFound, ENOENT | PoolSetNotFound", "PoolSetNotFound | PoolSetNotFound"),
    (statuses, "ConnectFailed, ECONNABORTED", "ConnectFailed, ECONNREFUSED"),
    (pmdk_sizes, "| 148 + L, 44 |", "| 144 + L, 44 |"),
    (pmdk_sizes, "| 116, 16 |", "| 104, 16 |"),
    (pmdk_sizes, "limit u64 (8192)", "limit u64 (4096)"),
    (pmdk_in_band, "0 flush what was WRITTEN, 1 the same", "1 flush what was WRITTEN, 0 the same"),
    (states, "SETTING", "CHANGING"),
)


@pytest.mark.parametrize(
    ("check", "old", "new"), MISTAKES, ids=lambda value: getattr(value, "__name__", "")
)
def test_a_mistake_is_seen(check, old, new):
    assert old in PAGE
    assert check(PAGE.replace(old, new, 1))


def test_every_check_was_seen_to_fail():
    assert {check for check, _, _ in MISTAKES} == set(CHECKS)
