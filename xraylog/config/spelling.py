"""Suggest what an unknown key or section was probably meant to be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def belongs(key: str, sections: Mapping[str, Sequence[str]]) -> str:
    """Return a hint which sections have this key, because it may be in the wrong one; "" if none has it."""
    homes = [f"[{name}]" for name, keys in sections.items() if key in keys]
    return f" (it belongs in {' or '.join(homes)})" if homes else ""


def likely(word: str, known: Sequence[str]) -> str:
    """Return a hint which known word a misspelt one resembles; "" if there is none."""
    import difflib  # only where something is wrong: a good run need not import it

    close = difflib.get_close_matches(word, known, n=1)
    return f" (did you mean {close[0]}?)" if close else ""
