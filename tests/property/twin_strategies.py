"""Sections of twins and patches for them, small enough to meet each other's keys."""

from typing import Any

from hypothesis import strategies as st

KEYS = ("a", "b", "c", "ключ", 'q"t', "")

numbers = st.integers(-1000, 1000) | st.floats(-1e6, 1e6, allow_nan=False).map(lambda value: round(value, 3))
strings = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=4)
plain = st.booleans() | numbers | strings
arrays = st.recursive(plain, lambda inner: st.lists(inner, max_size=2), max_leaves=3).map(lambda item: [item])


def sections(*, nulls: bool = True) -> st.SearchStrategy[dict[str, Any]]:
    """An object that keeps the rules; with ``nulls`` it may be a patch."""
    leaf = plain | arrays | st.none() if nulls else plain | arrays
    value = st.recursive(leaf, lambda inner: st.dictionaries(st.sampled_from(KEYS), inner, max_size=3), max_leaves=5)
    return st.dictionaries(st.sampled_from(KEYS), value, max_size=3)
