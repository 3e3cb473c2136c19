"""Settings as nested dictionaries: dotted keys, ``key=value``, and YAML files."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from worldmodel.errors import ConfigError
from worldmodel.files import read_text

_MAX_BYTES = 2**20


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested `base` with the values of `changes` on top; neither is altered."""
    merged = dict(base)
    for key, value in changes.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = merge(merged[key], value) if both else value
    return merged


class _Loader(yaml.SafeLoader):
    """Reads ``1e-3`` as a number, as YAML 1.2 and people do."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def nested(key: str, value: Any) -> dict[str, Any]:
    """Nest the value of a dotted key: ``a.b`` and 1 give ``{"a": {"b": 1}}``."""
    first, _, rest = key.partition(".")
    return {first: nested(rest, value) if rest else value}


def nest_keys(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Nest the dotted keys of a mapping: ``{"a.b": 1}`` becomes ``{"a": {"b": 1}}``."""
    values: dict[str, Any] = {}
    for key, value in settings.items():
        values = merge(values, nested(str(key), value))
    return values


def parse_setting(text: str) -> dict[str, Any]:
    """Turn ``key.of.section=value``, the value in YAML, into a nested dict.

    Raises:
        ConfigError: there is no key, no ``=``, or the value is not YAML.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"{text!r} is not a setting; write key=value, e.g. phase1.updates=2000")
    try:
        parsed = yaml.load(value, _Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"the value of {text!r} is not YAML: {error}") from error
    return nested(key.strip(), parsed)


def parse_settings(texts: Sequence[str] | None) -> dict[str, Any]:
    """Merge several settings into one nested dict, the last one on top; see `parse_setting`."""
    values: dict[str, Any] = {}
    for text in texts or ():
        values = merge(values, parse_setting(text))
    return values


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a configuration file.

    Raises:
        ConfigError: the file cannot be read, or is not a mapping in YAML.
    """
    try:
        values = yaml.load(read_text(path, _MAX_BYTES), _Loader)
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {path}: {error.strerror}") from error
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{path} is not YAML: {error}") from error
    values = {} if values is None else values
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds {type(values).__name__}, expected sections and keys")
    return values
