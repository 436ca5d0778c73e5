"""What a power cut may leave: everything synced, and of the rest what a seed says.

A page with unsynced stores holds, after the cut, what was synced, or what it held at any moment
since, or a mixture of these word by word; a size that was not synced may be the old one; a name
that was not synced may be there or not, each for itself, but a rename is one thing.
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.support.powercut.recorder import Event, Recorder, Words

_PAGE = 512  # words


@dataclass
class File:
    """A file, as far as it has been replayed."""

    durable: Words
    current: Words
    durable_size: int
    size: int
    #: What each page with unsynced stores has held since, the synced content first.
    pages: dict[int, list[tuple[int, Words]]] = field(default_factory=dict)
    #: Counts stores; and as of when each word was flushed last.
    clock: int = 0
    flushed: Words = field(default_factory=lambda: np.zeros(0, np.uint64))

    def store(self, indices: Any, values: Words) -> None:
        """Words were stored."""
        self.clock += 1
        touched = np.unique(indices // _PAGE)
        for page in touched.tolist():
            if page not in self.pages:
                self.pages[page] = [(0, self._page(self.durable, page))]
        self.current[indices] = values
        for page in touched.tolist():
            self.pages[page].append((self.clock, self._page(self.current, page)))

    def resize(self, size: int) -> None:
        """The file has another size; what it is on the medium is as it was."""
        self.size = size
        count = -(-size // 8)
        grown = np.zeros(max(count, len(self.durable)), np.uint64)
        grown[: len(self.durable)] = self.durable
        self.durable = grown
        self.flushed = np.zeros(len(grown), np.uint64)
        current = np.zeros(len(grown), np.uint64)
        kept = min(count, len(self.current))
        current[:kept] = self.current[:kept]
        self.current = current

    def flush(self, begin: int, end: int, unit: int) -> None:
        """What lies in a range now is synced, rounded to what the medium writes back together."""
        low = begin // unit * unit // 8
        high = min(-(-end // unit) * unit // 8, len(self.current))
        self.settle(low, self.current[low:high].copy(), self.clock)

    def settle(self, low: int, values: Words, clock: int) -> None:
        """These words, as they were at a time, are synced; some may have been again since."""
        high = low + len(values)
        where = self.flushed[low:high] <= clock
        self.flushed[low:high][where] = clock
        np.copyto(self.durable[low:high], values, where=where)
        for page in range(low // _PAGE, -(-high // _PAGE)):
            versions = self.pages.get(page)
            if versions is None:
                continue
            first, last = max(low, page * _PAGE), min(high, (page + 1) * _PAGE)
            inside = slice(first - page * _PAGE, last - page * _PAGE)
            piece = slice(first - low, last - low)
            for since, version in versions:
                if since <= clock:
                    np.copyto(version[inside], values[piece], where=where[piece])
            if all(np.array_equal(version, versions[0][1]) for _, version in versions[1:]):
                del self.pages[page]

    def sync(self) -> None:
        """All of it is synced, and its size."""
        self.flushed[:] = self.clock
        self.durable[:] = self.current
        self.durable_size = self.size
        self.pages.clear()

    def _page(self, words: Words, page: int) -> Words:
        piece = np.zeros(_PAGE, np.uint64)
        found = words[page * _PAGE : (page + 1) * _PAGE]
        piece[: len(found)] = found
        return piece

    def cut(self, dice: random.Random, mode: str, most: int | None = None) -> tuple[int, Words]:
        """Return size and content after a cut; with `most`, so many words of it."""
        if mode == "kept":
            return self.size, self.current[:most]
        words = self.durable[:most].copy()
        size = self.durable_size
        if self.size != size and dice.random() < 0.5:
            size = self.size
        for page, versions in self.pages.items():
            begin = page * _PAGE
            if begin >= len(words):
                continue
            room = words[begin : begin + _PAGE]
            fate = dice.random() if mode == "torn" else 0.0
            if mode == "lost" or fate < 0.3:
                found = versions[0][1]
            elif fate < 0.6:
                found = versions[dice.randrange(len(versions))][1]
            else:
                one, other = (versions[dice.randrange(len(versions))][1] for _ in range(2))
                chosen = np.random.default_rng(dice.getrandbits(32)).random(_PAGE) < dice.random()
                found = np.where(chosen, one, other)
            room[:] = found[: len(room)]
        return size, words


@dataclass
class _Later:
    number: int
    low: int
    values: Words
    clock: int


class Replay:
    """The events of a recorder, up to some moment.

    Parameters
    ----------
    recorder : Recorder
        That has finished.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._events = recorder.events
        self.machines = recorder.machines
        self.position = 0
        self._files: dict[int, File] = {}
        for number, words in recorder.first_words.items():
            size = recorder.first_sizes[number]
            self._files[number] = File(
                words.copy(), words.copy(), size, size, {}, 0, np.zeros_like(words)
            )
        self._durable = {name: dict(found) for name, found in recorder.first_names.items()}
        self._current = {name: dict(found) for name, found in recorder.first_names.items()}
        self._unsynced: dict[str, list[dict[str, int | None]]] = {
            name: [] for name in recorder.machines
        }
        self._later: dict[int, list[_Later]] = {}

    def __len__(self) -> int:
        return len(self._events)

    def advance(self, position: int) -> None:
        """Replay as far as that."""
        while self.position < position:
            self._apply(self._events[self.position])
            self.position += 1

    def _apply(self, event: Event) -> None:
        match event:
            case ("store", number, indices, values):
                self._file(number).store(indices, values)
            case ("size", number, size):
                self._file(number).resize(size)
            case ("flush", number, begin, end, unit):
                self._file(number).flush(begin, end, unit)
            case ("later", thread, number, begin, end, unit):
                self._later.setdefault(thread, []).append(self._flushed(number, begin, end, unit))
            case ("drain", thread):
                for each in self._later.pop(thread, []):
                    self._file(each.number).settle(each.low, each.values, each.clock)
            case ("sync", number):
                self._file(number).sync()
            case ("name", machine, changes):
                self._rename(self._current[machine], changes)
                self._unsynced[machine].append(changes)
            case ("syncnames", machine):
                self._durable[machine] = dict(self._current[machine])
                self._unsynced[machine].clear()

    def _flushed(self, number: int, begin: int, end: int, unit: int) -> _Later:
        file = self._file(number)
        low = begin // unit * unit // 8
        high = min(-(-end // unit) * unit // 8, len(file.current))
        return _Later(number, low, file.current[low:high].copy(), file.clock)

    def _file(self, number: int) -> File:
        if number not in self._files:
            empty = np.zeros(0, np.uint64)
            self._files[number] = File(empty, empty.copy(), 0, 0)
        return self._files[number]

    @staticmethod
    def _rename(names: dict[str, int], changes: dict[str, int | None]) -> None:
        for name, number in changes.items():
            if number is None:
                names.pop(name, None)
            else:
                names[name] = number

    def _names(self, machine: str, dice: random.Random, mode: str) -> dict[str, int]:
        names = dict(self._durable[machine])
        if mode == "kept":
            names = dict(self._current[machine])
        elif mode == "torn":
            for changes in self._unsynced[machine]:
                if dice.random() < 0.5:
                    self._rename(names, changes)
        return names

    def look(
        self, machine: str, name: str, dice: random.Random, mode: str, most: int
    ) -> bytes | None:
        """Return the first words of a file after a cut; None where it has no such name, or no end.

        Parameters
        ----------
        machine, name : str
            Which file.
        dice, mode
            As for `write`.
        most : int
            How many words.
        """
        number = self._names(machine, dice, mode).get(name)
        if number is None:
            return None
        size, words = self._file(number).cut(dice, mode, most)
        return words.tobytes() if size >= words.nbytes else None

    def write(self, machine: str, folder: str, dice: random.Random, mode: str) -> None:
        """Write what a machine has after a cut into an empty folder.

        Parameters
        ----------
        machine : str
            Which one.
        folder : str
            Where.
        dice : Random
            Decides what is kept.
        mode : {"torn", "lost", "kept"}
            "lost": only what was synced; "kept": everything, as if it had power.
        """
        names = self._names(machine, dice, mode)
        made: dict[int, str] = {}
        for name, number in sorted(names.items()):
            path = os.path.join(folder, name)
            if number in made:
                os.link(made[number], path)
                continue
            made[number] = path
            size, words = self._file(number).cut(dice, mode)
            _write(path, size, words)


def _write(path: str, size: int, words: Words) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.pwrite(descriptor, memoryview(words).cast("B")[:size], 0)
        os.ftruncate(descriptor, size)
    finally:
        os.close(descriptor)
