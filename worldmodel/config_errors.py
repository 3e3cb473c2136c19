"""Errors of a configuration in words: the key, what was expected, the value, and similar keys."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ValidationError

_SIMILAR = 0.75
"""Ratio of `difflib` from which on a key is taken for a misspelling of another."""

_SUGGESTED = 3


def explain(error: ValidationError, schema: type[BaseModel]) -> str:
    """Describe every error of a validation, with a suggestion for unknown keys.

    Args:
        error: of the validation by `schema`.
        schema: a model whose fields are keys, or sections of further keys.
    """
    keys = list(all_keys(schema))
    return "; ".join(line for item in error.errors() for line in _explain(item, keys))


def all_keys(schema: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield the dotted keys of a model: those of its sections, and the sections themselves."""
    for name, field in schema.model_fields.items():
        yield prefix + name
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from all_keys(field.annotation, f"{prefix}{name}.")


def _explain(item: Any, keys: list[str]) -> Iterator[str]:
    """Describe one error, or each key of an unknown section."""
    path = [str(part) for part in item["loc"]]
    if item["type"] == "extra_forbidden":
        for key in _leaves(".".join(path), item["input"]):
            yield f"unknown key {key!r} ({_suggest(key, keys)})"
        return
    if item["type"] == "literal_error":  # of an element of a list: name the list
        path = [part for part in path if not part.isdecimal()]
    key = ".".join(path)
    if item["type"] == "model_type":
        got = f"got {item['input']!r}"
        yield f"{key}: expected a section, {key}.KEY=VALUE for each setting, {got}"
    else:
        yield f"{key}: {complaint(item)}" if key else complaint(item)


def _leaves(key: str, value: Any) -> Iterator[str]:
    """Yield the dotted keys of all values below an unknown key."""
    if not isinstance(value, Mapping) or not value:
        yield key
        return
    for name, inner in value.items():
        yield from _leaves(f"{key}.{name}", inner)


def _suggest(key: str, keys: list[str]) -> str:
    """Suggest the most similar key, else those of the same name, else list the section's keys."""
    section, _, name = key.rpartition(".")
    same_name = [known for known in keys if known.rpartition(".")[2] == name]
    others = [known for known in keys if not key.startswith(f"{known}.")]
    similar = get_close_matches(key, others, 1, cutoff=_SIMILAR)
    similar = similar or get_close_matches(key, same_name, _SUGGESTED, cutoff=0.0)
    if similar:
        return f"did you mean {' or '.join(map(repr, sorted(similar, key=keys.index)))}?"
    while section and section not in keys:
        section = section.rpartition(".")[0]
    siblings = [k.rpartition(".")[2] for k in keys if k.rpartition(".")[0] == section]
    return f"expected one of {', '.join(siblings)}"


def complaint(item: Any) -> str:
    """Say what was expected and what was found, without the key.

    Args:
        item: an element of ``ValidationError.errors()``.
    """
    value, message = item["input"], item["msg"].removeprefix("Value error, ")
    if item["type"] == "value_error" and (isinstance(value, Mapping) or repr(value) in message):
        return str(message)
    if item["type"] == "literal_error":
        message = f"expected {item['ctx']['expected']}"
    message = re.sub(r"^Input should be (greater|less)", r"expected a number \1", message)
    message = re.sub(r"^Input should be", "expected", message)
    message = re.sub(r", (unable|got) .*", "", message)
    return f"{message}, got {value!r}"
