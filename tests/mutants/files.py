"""Mistakes with files: locks, names, headers, allocation, what is durable when."""

from __future__ import annotations

from tests.mutants import Mutant

_PART = ("tests/unit/test_poolfiles.py", "tests/unit/test_partfile.py")
_LOCAL = ("tests/unit/test_pool_local.py",)
_DRAFTS = ("tests/unit/test_drafts.py", "tests/faults/test_creations.py")
_HEADER = ("tests/unit/test_header.py",)

MUTANTS = (
    Mutant(
        "a part that was replaced before the lock is taken for the part",
        "PartFile.require_lock",
        "if not drafts.leads_to(self.path, self.fd):",
        "if False:",
        _PART,
    ),
    Mutant(
        "a part is opened without a lock",
        "lock",
        "fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)",
        "fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)",
        _PART,
    ),
    Mutant(
        "blocks are not allocated",
        "PartFile.allocate",
        "os.posix_fallocate(self.fd, 0, size)",
        "os.ftruncate(self.fd, size)",
        _PART,
    ),
    Mutant(
        "a file that holds something is taken for empty",
        "PartFile._adopt",
        "if any(part.read_header()):",
        "if False:",
        _PART,
    ),
    Mutant(
        "a part of another size is accepted",
        "PartFile.open",
        "if size is not None and part.size != size:",
        "if False:",
        _PART,
    ),
    Mutant(
        "a header is written and not synced",
        "PartFile.write_header",
        "os.fdatasync(self.fd)",
        "pass",
        _PART,
    ),
    Mutant(
        "a new file's name is not made durable",
        "sync_directory",
        "os.fsync(descriptor)",
        "pass",
        _DRAFTS,
    ),
    Mutant(
        "the note of a header change is not synced before its name",
        "_write_note",
        "os.fsync(file.fileno())",
        "pass",
        _PART,
    ),
    Mutant(
        "the name of the note is not made durable",
        "_write_note",
        "sync_directory(os.path.dirname(path))",
        "pass",
        _PART,
    ),
    Mutant(
        "a note that no longer applies is carried out",
        "pending",
        "if present not in (old, new) and is_whole(present):",
        "if False:",
        _PART,
    ),
    Mutant(
        "a restored pool's name is not made durable",
        "publish",
        "        first.give_name()\n        sync_directories([first])",
        "        first.give_name()",
        _DRAFTS,
    ),
    Mutant(
        "a restored pool is named before its data are durable",
        "HiddenCopy.publish",
        "self.region.deep_persist(0, self.region.size)",
        "",
        _LOCAL,
    ),
    Mutant(
        "a file that exists is restored over",
        "Draft.give_name",
        "os.link(self.hidden, self.path)",
        "os.rename(self.hidden, self.path)",
        ("tests/integration/test_pool.py", *_DRAFTS),
    ),
    Mutant(
        "remove takes a file that is no pool",
        "FilePlace.remove",
        "self.open().close(remove=True)",
        "poolfiles.remove_parts(_described(self.where), force=True)",
        _LOCAL,
    ),
    Mutant(
        "a damaged header is believed",
        "_check_alone",
        "if header.checksum != expected:",
        "if False:",
        _HEADER,
    ),
    Mutant(
        "parts in the wrong order are accepted",
        "_check_links",
        "if linked == headers[neighbour].uuid:",
        "if linked in known:",
        _HEADER,
    ),
    Mutant(
        "a foreign part is accepted",
        "_check_agreement",
        "if mine != other:",
        "if False:",
        _HEADER,
    ),
    Mutant(
        "an unsafe shutdown is not noticed",
        "ShutdownState.checked",
        "if trusted and dirty and not same:",
        "if False:",
        _HEADER,
    ),
    Mutant(
        "headers changed, and the note of it stays",
        "replace_headers",
        "with suppress(OSError):\n            os.unlink(note_path(parts[0].path))",
        "pass",
        _PART,
    ),
    Mutant(
        "a part listed twice is accepted",
        "_Parser.read_part",
        "if normal in self.seen:",
        "if False:",
        ("tests/unit/test_poolset.py",),
    ),
    Mutant(
        "the header page of a further part counts as data",
        "PoolSet.segments",
        "file_offset = skipped if segments else 0",
        "file_offset = 0",
        ("tests/unit/test_poolset.py", *_PART),
    ),
    Mutant(
        "a size in MB is one in MiB",
        "parse_size",
        "factor = None if match is None else _FACTORS.get(match[2])",
        "factor = None if match is None else _FACTORS.get(match[2].replace('MB', 'M'))",
        ("tests/unit/test_poolset.py",),
    ),
)
