"""Reading our own documentation: tables, sections, text in backticks."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

#: Every page for people, by its path from the root.
PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    "RELEASING.md",
    "SECURITY.md",
    *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md")),
)


def page(name: str) -> str:
    """Return a page's text."""
    return (ROOT / name).read_text()


def blocks(name: str, language: str) -> list[str]:
    """Return the blocks of code in a language that a page has."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page(name), re.M | re.S)


def source(name: str) -> str:
    """Return the text of a file of the code."""
    return (ROOT / name).read_text()


def table(text: str, *header: str) -> list[list[str]]:
    """Return the rows of the first table whose header begins with these cells.

    Raises
    ------
    AssertionError
        There is no such table, or a row has another number of cells.
    """
    lines = [line.strip() for line in text.splitlines()]
    for number, line in enumerate(lines):
        cells = _cells(line)
        if line.startswith("|") and tuple(cells[: len(header)]) == header:
            found = []
            for row in lines[number + 2 :]:
                if not row.startswith("|"):
                    break
                found.append(_cells(row))
                assert len(found[-1]) == len(cells), row
            return found
    raise AssertionError(f"there is no table that begins with {header}")


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))]


def after(text: str, mark: str) -> str:
    """Return what follows the first line that has `mark` in it, that line included."""
    assert mark in text, f"nothing says {mark!r}"
    return text[text.rindex("\n", 0, text.index(mark) + 1) + 1 :]


def ticked(text: str) -> list[str]:
    """Return what stands in single backticks, blocks of code left out."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"^\s*```.*?^\s*```", "", text, flags=re.M | re.S))


def numbers(text: str, pattern: str) -> tuple[int, ...]:
    """Return the numbers in the groups of a pattern; blanks stand for any white space."""
    match = re.search(pattern.replace(" ", r"\s+"), text)
    assert match, f"nothing says {pattern!r}"
    return tuple(int(group.replace(",", "")) for group in match.groups())
