"""Text from elsewhere, in a form that is safe to print."""

from __future__ import annotations

# Most text from a peer in an error of ours: enough for any genuine message.
_REMOTE_TEXT_LIMIT = 2000


def printable(text: str, limit: int = _REMOTE_TEXT_LIMIT) -> str:
    """Return `text` from elsewhere in a form that is safe to print.

    Parameters
    ----------
    text : str
        Anything, for example what ssh wrote on stderr.
    limit : int
        Longest result, in characters; ``...`` marks omitted text.

    Returns
    -------
    str
        `text` without surrounding white space, with every non-printing character escaped, on one
        line.
    """
    text = text.strip()
    shown: list[str] = []
    length = 0
    for character in text[: limit + 1]:
        piece = character if character.isprintable() else _escaped(character)
        length += len(piece)
        if length > limit:
            return "".join(shown)[: max(limit - 3, 0)] + "..."
        shown.append(piece)
    return "".join(shown)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")
