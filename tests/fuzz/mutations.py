"""Damage to files: of their bytes, and of the values in JSON and YAML."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import strategies as st

FRACTION = st.integers(0, 999_999).map(lambda n: n / 1e6)

BYTES = st.one_of(
    st.tuples(st.just("flip"), FRACTION, st.integers(0, 7)),
    st.tuples(st.just("truncate"), FRACTION, st.just(0)),
    st.tuples(st.just("zero"), FRACTION, st.integers(1, 400)),
    st.tuples(st.just("repeat"), FRACTION, st.integers(1, 400)),
    st.tuples(st.just("append"), FRACTION, st.integers(1, 4000)),
    st.tuples(st.just("empty"), FRACTION, st.just(0)),
    st.tuples(st.just("remove"), FRACTION, st.just(0)),
)
"""Kind, place as a fraction of the file, and size of a change."""

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_subnormal=False),  # training flushes them in its whole process
    st.text(max_size=12),
    st.sampled_from(["", "module:Name", "../..", "/dev/zero", "[/b]", "-dash", "a:b:c", "💥"]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


def change_bytes(path: Path, mutation: tuple[str, float, int]) -> None:
    """Damage a file."""
    kind, where, size = mutation
    content = bytearray(path.read_bytes())
    at = int(where * len(content))
    if kind == "remove":
        path.unlink()
        return
    if kind == "flip" and content:
        content[at] ^= 1 << size
    elif kind == "truncate":
        del content[at:]
    elif kind == "zero":
        content[at : at + size] = bytes(len(content[at : at + size]))
    elif kind == "repeat":
        content[at:at] = content[at : at + size]
    elif kind == "append":
        content += b"\xa5" * size
    elif kind == "empty":
        content.clear()
    path.write_bytes(content)


def places(content: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """List the path of every value in nested dictionaries and lists."""
    found = [path] if path else []
    items = content.items() if isinstance(content, dict) else ()
    items = enumerate(content) if isinstance(content, list) else items
    for key, value in items:
        found += places(value, (*path, key))
    return found


def change_value(content: Any, where: float, value: Any, *, delete: bool) -> None:
    """Replace or delete one value of nested dictionaries and lists, in place."""
    found = places(content)
    *parents, key = found[int(where * len(found))]
    for parent in parents:
        content = content[parent]
    if delete:
        del content[key]
    else:
        content[key] = value
