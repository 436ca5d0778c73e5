"""Pool set files: what PMDK accepts, what it refuses, and the arithmetic of parts."""

from __future__ import annotations

import fcntl
import os
import string

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rpmem.errors import (
    PoolSetBusy,
    PoolSetDenied,
    PoolSetError,
    PoolSetMalformed,
    PoolSetNotFound,
    UsageError,
)
from rpmem.files import directories, poolset
from rpmem.files.poolset import LocalReplica, Part, PoolSet, RemoteReplica, parse

MIB = 1024 * 1024

# --- sizes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1", 1),
        ("16777216", 16 * MIB),
        ("16777216B", 16 * MIB),
        ("007", 7),
        ("1K", 1 << 10),
        ("1M", 1 << 20),
        ("3G", 3 << 30),
        ("1T", 1 << 40),
        ("1P", 1 << 50),
        ("1KiB", 1 << 10),
        ("2MiB", 2 << 20),
        ("1GiB", 1 << 30),
        ("1TiB", 1 << 40),
        ("1PiB", 1 << 50),
        ("1kB", 10**3),
        ("12MB", 12 * 10**6),
        ("1GB", 10**9),
        ("1TB", 10**12),
        ("1PB", 10**15),
        (str(2**63 - 1), 2**63 - 1),
    ],
)
def test_sizes(text, size):
    assert poolset.parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "0M",
        "-1",
        "+1",
        "1.5G",
        "1 M",
        " 1",
        "1 ",
        "M",
        "1m",
        "1k",
        "1KB",
        "1kiB",
        "1Kib",
        "1kb",
        "1MBB",
        "1E",
        "1EiB",
        "0x10",
        "1_000",
        "1e3",
        "\u0661",
        "AUTO",
        str(2**63),
        "8192P",
        "9" * 31,
        "1M\n",
    ],
)
def test_sizes_refused(text):
    with pytest.raises(UsageError) as caught:
        poolset.parse_size(text)
    assert str(caught.value).isprintable()
    assert "KiB" in str(caught.value)


@given(st.integers(1, 2**63 - 1) | st.integers(1, 8191).map(lambda n: n << 50))
def test_sizes_round_trip(size):
    assert poolset.parse_size(poolset.format_size(size)) == size


@pytest.mark.parametrize(
    ("size", "text"),
    [(1, "1"), (1000, "1000"), (1024, "1K"), (16 * MIB, "16M"), (1536 * MIB, "1536M")],
)
def test_sizes_are_written_short(size, text):
    assert poolset.format_size(size) == text


# --- what is accepted -------------------------------------------------------------------------

EXAMPLE = """\
PMEMPOOLSET
# a comment, and an empty line

OPTION SINGLEHDR
100G /mnt/pmem0/part.0
\t200GiB\t/mnt/pmem1/part.1   # at the end of a line
AUTO /dev/dax0.0

REPLICA
500GB /mnt/pmem2/part.0
REPLICA user@node2:22   remote.set
REPLICA
400G /mnt/pmem3/part.0
REPLICA [fe80::1]:22 dir/remote.set # last"""


def test_everything_at_once():
    got = parse(EXAMPLE, source="a.set")
    assert got.options == {"SINGLEHDR"}
    assert got.parts == (
        Part(100 << 30, "/mnt/pmem0/part.0"),
        Part(200 << 30, "/mnt/pmem1/part.1"),
        Part(None, "/dev/dax0.0"),
    )
    assert [part.line for part in got.parts] == [5, 6, 7]
    assert got.replicas == (
        LocalReplica([Part(500 * 10**9, "/mnt/pmem2/part.0")]),
        RemoteReplica("user@node2:22", "remote.set"),
        LocalReplica([Part(400 << 30, "/mnt/pmem3/part.0")]),
        RemoteReplica("[fe80::1]:22", "dir/remote.set"),
    )
    assert [replica.line for replica in got.replicas] == [9, 11, 12, 14]
    assert len(got.local_copies) == 3
    assert got.where(got.parts[2]) == "a.set:7"
    assert parse(got.format()) == got


@pytest.mark.parametrize(
    "text",
    [
        "PMEMPOOLSET\n2M /a",
        "PMEMPOOLSET\n2M /a\n",
        "PMEMPOOLSET\n \t \n2M\t /a \n\n\n",
        "PMEMPOOLSET\n#2M /b\n2M /a#2M /b\n",
        "PMEMPOOLSET\n  # indented\n2M /a\n",
    ],
)
def test_blanks_and_comments(text):
    assert parse(text).parts == (Part(2 * MIB, "/a"),)


def test_line_ends_of_another_system():
    text = "PMEMPOOLSET\n# x\nOPTION SINGLEHDR\n\n2M /a\n4M /b #\nREPLICA node2 a.set\n"
    assert parse(text.replace("\n", "\r\n")) == parse(text)
    assert parse(text.replace("\n", "\r\n", 1)) == parse(text)


@pytest.mark.parametrize(
    ("beginning", "words"),
    [
        (b"\xef\xbb\xbfPMEMPOOLSET", "byte order mark (utf-8)"),
        ("\ufeffPMEMPOOLSET".encode("utf-16-le"), "byte order mark (utf-16-le)"),
        ("\ufeffPMEMPOOLSET".encode("utf-16-be"), "byte order mark (utf-16-be)"),
        (b"\nPMEMPOOLSET", "an empty line"),
        (b"\r\n \tPMEMPOOLSET", "an empty line"),
    ],
)
def test_what_an_editor_put_before_the_first_word(tmp_path, beginning, words):
    path = tmp_path / "a.set"
    path.write_bytes(beginning + b"\n2M /a\n")
    with pytest.raises(PoolSetMalformed) as caught:
        poolset.load_any(path)
    assert words in str(caught.value)
    assert caught.value.where == f"{path}:1"
    assert caught.value.hint


def test_a_part_is_no_pool_set_file_that_an_editor_spoilt(tmp_path):
    path = tmp_path / "part"
    path.write_bytes(b"\nPMEMPOOLSET\n2M /a\n".ljust(2 * MIB, b"\0"))
    assert poolset.load_any(path).parts == (Part(2 * MIB, str(path)),)


@pytest.mark.parametrize("line", ["OPTION NOHDRS", "OPTION\tNOHDRS  NOHDRS", "OPTION NOHDRS#x"])
def test_options(line):
    assert parse(f"PMEMPOOLSET\n{line}\n2M /a\n").options == {"NOHDRS"}
    assert parse(f"PMEMPOOLSET\n2M /a\n{line}\n").options == {"NOHDRS"}


def test_only_blanks_and_tabs_separate():
    # Other white space is part of the path, as for PMDK.
    assert parse("PMEMPOOLSET\n2M /a\u00a0b\n").parts[0].path == "/a\u00a0b"
    assert parse("PMEMPOOLSET\n2M /a\x0bb\x85c\n").parts[0].path == "/a\x0bb\x85c"


# --- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("", 1, "first line is empty"),
        ("PMEMPOOLSET", 1, "no parts"),
        ("PMEMPOOLSET \n2M /a", 1, "exactly PMEMPOOLSET"),
        ("PMEMPOOLSET\r\r\n2M /a\r\n", 1, "exactly PMEMPOOLSET"),
        (" PMEMPOOLSET\n2M /a", 1, "exactly PMEMPOOLSET"),
        ("pmempoolset\n2M /a", 1, "exactly PMEMPOOLSET"),
        ("# x\nPMEMPOOLSET\n2M /a", 1, "exactly PMEMPOOLSET"),
        ("\ufeffPMEMPOOLSET\n2M /a", 1, "exactly PMEMPOOLSET"),
        ("PMEMOBJ\0\x01\x02", 1, "exactly PMEMPOOLSET"),
        ("PMEMPOOLSET\n\n", 3, "no parts"),
        ("PMEMPOOLSET\nREPLICA\n2M /a\n", 2, "pool set has no parts"),
        ("PMEMPOOLSET\nREPLICA node2 a.set\n", 2, "pool set has no parts"),
        ("PMEMPOOLSET\n2M /a\nREPLICA\n", 4, "replica has no parts"),
        ("PMEMPOOLSET\n2M /a\nREPLICA\nREPLICA\n2M /b\n", 4, "replica has no parts"),
        ("PMEMPOOLSET\n2M /a\nREPLICA\nREPLICA node2 a.set\n", 4, "replica has no parts"),
        ("PMEMPOOLSET\n2M\n", 2, "a size and a path"),
        ("PMEMPOOLSET\n/a\n", 2, "a size and a path"),
        ("PMEMPOOLSET\n2M /a b\n", 2, "a size and a path"),
        ("PMEMPOOLSET\n2 M /a\n", 2, "a size and a path"),
        ("PMEMPOOLSET\n2M a\n", 2, "not absolute"),
        ("PMEMPOOLSET\n2M ~/a\n", 2, "not absolute"),
        ("PMEMPOOLSET\n/a 2M\n", 2, "not absolute"),
        ("PMEMPOOLSET\n2Q /a\n", 2, "'2Q' is not a size"),
        ("PMEMPOOLSET\n0 /a\n", 2, "not a size"),
        ("PMEMPOOLSET\nauto /a\n", 2, "AUTO is for device DAX"),
        ("PMEMPOOLSET\n2M /a\r#\n", 2, "carriage return"),
        ("PMEMPOOLSET\n2M /a\0b\n", 2, "zero byte"),
        ("PMEMPOOLSET\n2M /a\n4M /b/../a\n", 3, "on line 2"),
        ("PMEMPOOLSET\n2M /a\nREPLICA\n2M /a\n", 4, "on line 2"),
        ("PMEMPOOLSET\nOPTION\n2M /a\n", 2, "OPTION has no name"),
        ("PMEMPOOLSET\nOPTION singlehdr\n2M /a\n", 2, "'singlehdr' is not an option"),
        ("PMEMPOOLSET\nOPTION NOHDRS X\n2M /a\n", 2, "'X' is not an option"),
        ("PMEMPOOLSET\nOPTIONNOHDRS\n2M /a\n", 2, "a size and a path"),
        ("PMEMPOOLSET\nOPTION NOHDRS SINGLEHDR\n2M /a\n", 2, "exclude each other"),
        ("PMEMPOOLSET\nOPTION NOHDRS\n2M /a\nOPTION SINGLEHDR", 4, "exclude each other"),
        ("PMEMPOOLSET\n2M /a\nREPLICA node2\n", 3, "REPLICA is followed by 1 word"),
        ("PMEMPOOLSET\n2M /a\nREPLICA node2 a.set b\n", 3, "REPLICA is followed by 3 words"),
        ("PMEMPOOLSET\n2M /a\nREPLICAS\n", 3, "a size and a path"),
        ("PMEMPOOLSET\n2M /a\nREPLICA node2 /abs.set\n", 3, "absolute"),
        (
            "PMEMPOOLSET\n2M /a\nREPLICA node2 ../x.set\n",
            3,
            "points outside the pool set directory",
        ),
        ("PMEMPOOLSET\n2M /a\nREPLICA a x.set\nREPLICA b x.set\nREPLICA a x.set\n", 5, "on line 3"),
        ("PMEMPOOLSET\n2M /a\nREPLICA ::1 x.set\nREPLICA [::1] x.set\n", 4, "on line 3"),
        ("PMEMPOOLSET\n2M /a\nREPLICA -oX x.set\n", 3, "option of ssh"),
        ("PMEMPOOLSET\n2M /a\nREPLICA node2:0 x.set\n", 3, "'0' is not a port"),
        ("PMEMPOOLSET\n2M /a\nREPLICA node2 a.set\n2M /b\n", 4, "remote replica cannot have parts"),
    ],
)
def test_refused_with_file_line_and_remedy(text, line, words):
    with pytest.raises(PoolSetMalformed) as caught:
        parse(text, source="a.set")
    assert caught.value.where == f"a.set:{line}"
    assert words in str(caught.value)
    assert caught.value.hint
    assert str(caught.value).isprintable()


@given(st.text())
def test_any_text_is_refused_politely(text):
    assume(not text.startswith("PMEMPOOLSET\n"))
    with pytest.raises(PoolSetMalformed) as caught:
        parse(text)
    assert str(caught.value).isprintable()


_word = st.sampled_from(
    [
        "OPTION",
        "REPLICA",
        "SINGLEHDR",
        "NOHDRS",
        "2M",
        "AUTO",
        "/a",
        "/b",
        "node2",
        "x.set",
        "#",
        "",
    ]
) | st.text(max_size=4)


@given(st.lists(st.lists(_word, max_size=4).map(" ".join), max_size=6).map("\n".join))
def test_any_lines_are_refused_politely_or_round_trip(body):
    try:
        got = parse("PMEMPOOLSET\n" + body)
    except PoolSetMalformed as error:
        refusal = error
    else:
        assert parse(got.format()) == got
        return
    assert str(refusal).isprintable()
    assert refusal.hint


_paths = st.text(
    string.ascii_letters + string.digits + "._-/äé\u00a0", min_size=1, max_size=20
).map(lambda tail: "/" + tail)
_parts = st.lists(
    st.builds(Part, size=st.none() | st.integers(1, 2**63 - 1), path=_paths),
    min_size=1,
    max_size=4,
)
_remotes = st.builds(
    RemoteReplica,
    target=st.sampled_from(["node2", "u@node2:22", "[::1]:7", "local:/x"]),
    pool_set=st.sampled_from(["a.set", "b/c.set"]),
)
_sets = st.builds(
    PoolSet,
    parts=_parts,
    replicas=st.lists(st.builds(LocalReplica, _parts) | _remotes, max_size=3),
    options=st.sampled_from([frozenset(), frozenset({"SINGLEHDR"}), frozenset({"NOHDRS"})]),
)


@given(_sets)
def test_round_trip(given_set):
    paths = [os.path.normpath(part.path) for copy in given_set.local_copies for part in copy]
    assume(len(set(paths)) == len(paths))
    remotes = [
        (each.target, each.pool_set)
        for each in given_set.replicas
        if isinstance(each, RemoteReplica)
    ]
    assume(len(set(remotes)) == len(remotes))
    assert parse(given_set.format()) == given_set


@pytest.mark.parametrize("path", ["relative", "/with blank", "/with#hash", "/with\nnewline", "/\t"])
def test_paths_that_no_file_can_name(path):
    with pytest.raises(PoolSetMalformed):
        PoolSet([Part(2 * MIB, path)]).format()


def test_the_constructor_checks_too():
    with pytest.raises(PoolSetMalformed):
        PoolSet([])
    with pytest.raises(PoolSetMalformed):
        PoolSet([Part(1, "/a")], options=frozenset({"X"}))
    with pytest.raises(PoolSetMalformed):
        PoolSet([Part(1, "/a")], options=frozenset({"SINGLEHDR", "NOHDRS"}))


# --- arithmetic -------------------------------------------------------------------------------


def sized(*sizes, options=()):
    return PoolSet(
        [Part(size, f"/{i}") for i, size in enumerate(sizes)], options=frozenset(options)
    )


@pytest.mark.parametrize(
    ("pool_set", "size"),
    [
        (sized(8 * MIB), 8 * MIB),
        (sized(8 * MIB + 4095), 8 * MIB),
        (sized(8 * MIB, 8 * MIB, 8 * MIB), 24 * MIB - 8192),
        # `pmempool create` makes a pool of 24,576,000 bytes from 12M and 12MB.
        (sized(12 * MIB, 12_000_000), 24_576_000),
        (sized(8 * MIB, 8 * MIB, options=["SINGLEHDR"]), 16 * MIB),
        (sized(8 * MIB, 8 * MIB + 5000, options=["NOHDRS"]), 16 * MIB + 4096),
    ],
)
def test_pool_size(pool_set, size):
    assert pool_set.pool_size == size


def test_the_smallest_local_copy_counts():
    text = "PMEMPOOLSET\n8M /a\n8M /b\nREPLICA\n12M /c\nREPLICA node2 x.set\n"
    assert parse(text).pool_size == 12 * MIB


def test_segments():
    first, second = sized(8 * MIB + 1, 4 * MIB + 4097).segments()
    assert (first.file_offset, first.length, first.pool_offset) == (0, 8 * MIB, 0)
    assert (second.file_offset, second.length, second.pool_offset) == (4096, 4 * MIB, 8 * MIB)
    _, second = sized(8 * MIB, 4 * MIB, options=["SINGLEHDR"]).segments()
    assert (second.file_offset, second.length, second.pool_offset) == (0, 4 * MIB, 8 * MIB)


@given(st.lists(st.integers(8192, 2**40), min_size=1, max_size=5), st.booleans())
def test_segments_are_contiguous(sizes, single_header):
    pool_set = sized(*sizes, options=["SINGLEHDR"] if single_header else [])
    end = 0
    for segment, size in zip(pool_set.segments(), sizes, strict=True):
        assert segment.pool_offset == end
        assert segment.length % 4096 == segment.file_offset % 4096 == 0
        assert 0 <= size - (segment.file_offset + segment.length) < 4096
        end += segment.length
    assert end == pool_set.pool_size
    headers = 1 if single_header else len(sizes)
    assert end == sum(size // 4096 * 4096 for size in sizes) - 4096 * (headers - 1)


@pytest.mark.parametrize("pool_set", [sized(4095), sized(2 * MIB, 8191), sized(None)])
def test_no_pool_size(pool_set):
    with pytest.raises(PoolSetMalformed):
        _ = pool_set.pool_size


def test_part_sizes():
    parse("PMEMPOOLSET\n2M /a\nAUTO /b\n").check_part_sizes()
    with pytest.raises(PoolSetMalformed, match=r"a\.set:3: /b has 2097151 bytes"):
        parse("PMEMPOOLSET\n2M /a\n2097151 /b\n", source="a.set").check_part_sizes()
    with pytest.raises(PoolSetMalformed, match=r"a\.set:4"):
        parse("PMEMPOOLSET\n2M /a\nREPLICA\n1M /b\n", source="a.set").check_part_sizes()


def test_for_a_target():
    parse("PMEMPOOLSET\n2M /a\n2M /b\n").check_for_target()
    for replica in ("REPLICA\n2M /b", "REPLICA node2 x.set"):
        with pytest.raises(PoolSetMalformed, match=r"a\.set:3: .*replicas"):
            parse(f"PMEMPOOLSET\n2M /a\n{replica}\n", source="a.set").check_for_target()
    with pytest.raises(PoolSetMalformed, match="needs 2097152"):
        parse("PMEMPOOLSET\n1M /a\n").check_for_target()


# --- files ------------------------------------------------------------------------------------


def write(path, text):
    path.write_bytes(text.encode())
    return path


def test_load(tmp_path):
    path = write(tmp_path / "a.set", "PMEMPOOLSET\n2M /a\n")
    got = poolset.load_any(path)
    assert got.parts == (Part(2 * MIB, "/a"),)
    assert got.source == str(path)
    assert poolset.load_any(str(path), lock=False) == got


def test_load_keeps_the_bytes_of_paths(tmp_path):
    path = tmp_path / "a.set"
    path.write_bytes(b"PMEMPOOLSET\n2M /\xff\xc3\xa4\n")
    (part,) = poolset.load_any(path).parts
    assert os.fsencode(part.path) == b"/\xff\xc3\xa4"


def test_load_names_what_is_wrong(tmp_path):
    with pytest.raises(PoolSetNotFound, match="no such pool set file"):
        poolset.load_any(tmp_path / "none.set")
    with pytest.raises(PoolSetMalformed, match="not a file"):
        poolset.load_any(tmp_path)
    with pytest.raises(PoolSetMalformed, match=r"a\.set:2: "):
        poolset.load_any(write(tmp_path / "a.set", "PMEMPOOLSET\nx /a\n"))
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(PoolSetMalformed, match="not a file"):
        poolset.load_any(tmp_path / "fifo")


def test_a_file_that_is_too_large_is_not_cut_off(tmp_path, monkeypatch):
    monkeypatch.setattr(poolset, "_LARGEST_FILE", 8192)
    text = "PMEMPOOLSET\n4M /mnt/one\n"
    write(tmp_path / "p.set", text.ljust(8191, "#"))
    assert len(poolset.load_any(tmp_path / "p.set").parts) == 1
    write(tmp_path / "p.set", text.ljust(8192, "#") + "\n4M /mnt/two\n")
    with pytest.raises(PoolSetMalformed, match="larger than 8192 bytes"):
        poolset.load_any(tmp_path / "p.set")


def test_load_without_permission(tmp_path):
    path = write(tmp_path / "a.set", "PMEMPOOLSET\n2M /a\n")
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read every file")
    with pytest.raises(PoolSetDenied):
        poolset.load_any(path)


def test_load_of_a_locked_file(tmp_path):
    path = write(tmp_path / "a.set", "PMEMPOOLSET\n2M /a\n")
    with path.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(PoolSetBusy):
            poolset.load_any(path)
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(PoolSetBusy):
            poolset.open_locked(str(path))
        assert len(os.listdir("/proc/self/fd")) == before
        assert poolset.load_any(path, lock=False)
        fcntl.flock(other, fcntl.LOCK_SH)
        assert poolset.load_any(path)
    # The lock goes with the file descriptor.
    with path.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_load_any(tmp_path):
    path = write(tmp_path / "a.set", "PMEMPOOLSET\n2M /a\n")
    assert poolset.load_any(path) == parse(path.read_text())
    pool = tmp_path / "a pool#1"
    with pool.open("wb") as file:
        file.truncate(3 * MIB)
    got = poolset.load_any(pool)
    assert got.parts == (Part(3 * MIB, str(pool)),)
    assert got.pool_size == 3 * MIB
    with pytest.raises(PoolSetNotFound):
        poolset.load_any(tmp_path / "none")


def test_single_is_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert poolset.single("pool", 5).parts == (Part(5, str(tmp_path / "pool")),)


# --- directories and devices ------------------------------------------------------------------


def directory_set(*paths, option="OPTION SINGLEHDR", size="4M"):
    return parse("\n".join(["PMEMPOOLSET", option, *(f"{size} {path}" for path in paths)]))


def make_part(path, size=2 * MIB):
    with path.open("wb") as file:
        file.truncate(size)


def test_files_need_no_resolving(tmp_path):
    pool_set = parse(f"PMEMPOOLSET\n2M {tmp_path}/a\n")
    assert poolset.resolve(pool_set) is pool_set


def test_directories_when_creating(tmp_path):
    one, two = tmp_path / "1", tmp_path / "2"
    one.mkdir()
    two.mkdir()
    got = poolset.resolve(directory_set(one, two), create=True)
    assert got.parts == (
        Part(4 * MIB, f"{one}/000000.pmem"),
        Part(4 * MIB, f"{two}/000001.pmem"),
    )
    assert got.pool_size == 8 * MIB
    with pytest.raises(PoolSetNotFound, match=r"000000\.pmem"):
        poolset.resolve(directory_set(one, two))


def test_directories_when_opening(tmp_path):
    one, two = tmp_path / "1", tmp_path / "2"
    one.mkdir()
    two.mkdir()
    make_part(two / "000001.pmem", 3 * MIB)
    make_part(one / "000000.pmem")
    make_part(one / "000002.pmem")
    make_part(one / "notes.txt")
    make_part(one / "x.pmem")
    (one / "000003.pmem").mkdir()
    for create in (False, True):
        got = poolset.resolve(directory_set(one, two), create=create)
        assert [os.path.basename(part.path) for part in got.parts] == [
            directories.part_file_name(index) for index in range(3)
        ]
        assert [part.size for part in got.parts] == [2 * MIB, 3 * MIB, 2 * MIB]
    (two / "000001.pmem").unlink()
    with pytest.raises(PoolSetNotFound, match=r"000001\.pmem"):
        poolset.resolve(directory_set(one, two))
    make_part(two / "000000.pmem")
    with pytest.raises(PoolSetMalformed, match="twice"):
        poolset.resolve(directory_set(one, two))


def test_directories_of_replicas(tmp_path):
    one, two = tmp_path / "1", tmp_path / "2"
    one.mkdir()
    two.mkdir()
    text = f"PMEMPOOLSET\nOPTION SINGLEHDR\n4M {one}\nREPLICA node2 a.set\nREPLICA\n8M {two}\n"
    got = poolset.resolve(parse(text), create=True)
    assert got.parts == (Part(4 * MIB, f"{one}/000000.pmem"),)
    assert got.replicas == (
        RemoteReplica("node2", "a.set"),
        LocalReplica([Part(8 * MIB, f"{two}/000000.pmem")]),
    )
    assert got.pool_size == 4 * MIB


@pytest.mark.parametrize("option", ["", "OPTION NOHDRS"])
def test_directories_need_a_single_header(tmp_path, option):
    with pytest.raises(PoolSetMalformed, match="SINGLEHDR"):
        poolset.resolve(directory_set(tmp_path, option=option), create=True)


def test_directories_and_files_do_not_mix(tmp_path):
    for paths in ((tmp_path, tmp_path / "file"), (tmp_path / "file", tmp_path)):
        with pytest.raises(PoolSetMalformed, match="directories for all parts or for none"):
            poolset.resolve(directory_set(*paths), create=True)


def test_one_directory_under_two_names(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(PoolSetMalformed, match="same directory"):
        poolset.resolve(directory_set(tmp_path / "a", tmp_path / "b"), create=True)


def test_auto_is_for_devices(tmp_path):
    make_part(tmp_path / "file")
    for path in (tmp_path / "file", tmp_path / "none"):
        with pytest.raises(PoolSetMalformed, match="not a device DAX"):
            poolset.resolve(parse(f"PMEMPOOLSET\nAUTO {path}\n"))
    with pytest.raises(PoolSetMalformed, match="AUTO"):
        poolset.resolve(directory_set(tmp_path, size="AUTO"), create=True)
    with pytest.raises(PoolSetMalformed, match="not a device DAX"):
        poolset.resolve(parse("PMEMPOOLSET\nAUTO /dev/null\n"))


class FakeDevices:
    """Device DAX needs hardware: /dev/null and /dev/zero stand in, with sizes of our making."""

    def __init__(self, monkeypatch, **numbers):
        monkeypatch.setattr(directories, "_device_number", lambda path, name: numbers.get(name))


def test_device_sizes(monkeypatch):
    FakeDevices(monkeypatch, size=64 * MIB, align=2 * MIB)
    got = poolset.resolve(parse("PMEMPOOLSET\nAUTO /dev/null\n"))
    assert got.parts == (Part(64 * MIB, "/dev/null"),)
    assert poolset.resolve(parse("PMEMPOOLSET\n64M /dev/null\n")).pool_size == 64 * MIB
    with pytest.raises(PoolSetMalformed, match="has 67108864 bytes, not 33554432"):
        poolset.resolve(parse("PMEMPOOLSET\n32M /dev/null\n"))


def test_devices_that_cannot_skip_a_header(monkeypatch):
    FakeDevices(monkeypatch, size=64 * MIB, align=2 * MIB)
    two = "AUTO /dev/null\nAUTO /dev/zero\n"
    with pytest.raises(PoolSetMalformed, match="SINGLEHDR"):
        poolset.resolve(parse(f"PMEMPOOLSET\n{two}"))
    assert poolset.resolve(parse(f"PMEMPOOLSET\nOPTION SINGLEHDR\n{two}")).pool_size == 128 * MIB
    FakeDevices(monkeypatch, size=64 * MIB, align=4096)
    assert poolset.resolve(parse(f"PMEMPOOLSET\n{two}")).pool_size == 128 * MIB - 4096


def test_devices_and_files_do_not_mix(monkeypatch, tmp_path):
    FakeDevices(monkeypatch, size=64 * MIB, align=4096)
    with pytest.raises(PoolSetMalformed, match="all parts of one copy or for none"):
        poolset.resolve(parse(f"PMEMPOOLSET\nAUTO /dev/null\n4M {tmp_path}/a\n"))


def test_every_error_is_a_pool_set_error():
    for text in ("", "PMEMPOOLSET\n", "PMEMPOOLSET\nx\n"):
        with pytest.raises(PoolSetError):
            parse(text)
