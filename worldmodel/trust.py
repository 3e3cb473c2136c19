"""Trust: a run of others names no code to import and no directory to write to, unless you say so.

The configuration of a run may name code, as in ``env.id: mypackage.envs:MyEnv``. Reading it runs
nothing, but using the run imports that module. So `Run` uses such a configuration only if it was
written on this machine by you, or if you accept it: with ``--trust``, ``trust=True``, or the
environment variable ``WORLDMODEL_TRUST=1``.

A run is yours if its ``signature`` is the HMAC-SHA256 of ``config.yaml`` and ``models/spec.json``
under a random key that only you can read (``~/.config/worldmodel/key``). Jupyter signs its
notebooks in the same way.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from worldmodel.errors import RunError
from worldmodel.files import write_text
from worldmodel.registry import is_reference

if TYPE_CHECKING:
    from worldmodel.config import Config
    from worldmodel.models import ModelSpec

_VARIABLE = "WORLDMODEL_TRUST"
_SIGNED = ("config.yaml", "models/spec.json")


def trust_all() -> None:
    """Trust every run, in this process and those that it starts."""
    os.environ[_VARIABLE] = "1"


def trusts_all() -> bool:
    """Whether the user trusts every run and agent."""
    return os.environ.get(_VARIABLE) == "1"


def sign(path: Path) -> None:
    """Sign a run that this process wrote; a run stays unsigned where no key can be stored."""
    key = _key(create=True)
    if key is not None:
        write_text(path / "signature", _signature(path, key) + "\n")


def is_signed(path: Path) -> bool:
    """Whether a run was written by this user, and not changed by others since."""
    key, signature = _key(create=False), path / "signature"
    if key is None or not signature.is_file() or signature.stat().st_size > 100:
        return False
    found = signature.read_text(encoding="utf-8", errors="replace").strip()
    return hmac.compare_digest(found.encode(), _signature(path, key).encode())


def require_trust(path: Path, named: Iterator[str]) -> None:
    """Check that a run may be used, although it names code or directories.

    Args:
        path: the run directory.
        named: what it names, as in ``"env.id: mypackage.envs:MyEnv"``.

    Raises:
        RunError: If it names anything, is not signed, and the user has not accepted it.
    """
    if trusts_all():
        return
    found = list(named)
    if found and not is_signed(path):
        raise RunError(
            f"{path} was made or changed by others or on another machine, and names code to import "
            f"or directories to write to ({'; '.join(found)}); if you trust it, add --trust (in "
            "Python: trust=True, or the environment variable WORLDMODEL_TRUST=1)"
        )


def named_by_config(config: Config) -> Iterator[str]:
    """List the code and the directories that a configuration names."""
    env, model = config.env, config.model
    if env.id is not None and ":" in env.id:  # also module:ID, which Gymnasium imports
        yield f"env.id: {env.id}"
    named = {
        "env.wrappers": env.wrappers,
        "data.policy": [config.data.policy],
        "data.sources": config.data.sources,
        "model.encoder": [model.encoder],
        "model.decoder": [model.decoder],
        "model.predictor": [model.predictor],
        "objective.name": [config.objective.name],
        "evaluation.readout": [config.evaluation.readout],
        "planning.method": [config.planning.method],
    }
    for key, values in named.items():
        yield from (f"{key}: {value}" for value in values if is_reference(value))
    if _leads_elsewhere(config.data.dir):
        yield f"data.dir: {config.data.dir}"


def named_by_spec(spec: ModelSpec) -> Iterator[str]:
    """List the code that the spec of a model names."""
    for key in ("encoder", "decoder", "predictor"):
        if is_reference(getattr(spec, key)):
            yield f"{key} in models/spec.json: {getattr(spec, key)}"


def _leads_elsewhere(path: Path) -> bool:
    """Whether a path is not below the current directory."""
    return path.is_absolute() or ".." in PurePath(path).parts or path.is_symlink()


def require_no_links(path: Path) -> None:
    """Check that no file of a run leads out of it.

    Raises:
        RunError: If one is a link.
    """
    for folder, directories, files in os.walk(path):
        for name in (*directories, *files):
            entry = Path(folder, name)
            if entry.is_symlink():
                raise RunError(
                    f"{entry} is a link, and files of a run must be inside of it; replace the link "
                    "by a copy"
                )


def _signature(path: Path, key: bytes) -> str:
    digest = hmac.new(key, digestmod=hashlib.sha256)
    for name in _SIGNED:
        file = path / name
        content = file.read_bytes() if file.is_file() else b""
        digest.update(len(content).to_bytes(8, "little") + content)
    return digest.hexdigest()


def _key(*, create: bool) -> bytes | None:
    """Return this user's key; None if there is none, or if it cannot be stored."""
    base = os.environ.get("XDG_CONFIG_HOME") or os.environ.get("APPDATA")
    try:
        path = Path(base or Path.home() / ".config") / "worldmodel" / "key"
        if not path.exists():
            if not create:
                return None
            path.parent.mkdir(parents=True, exist_ok=True)
            _write_key(path)
        return path.read_bytes()
    except (OSError, RuntimeError):  # RuntimeError: there is no home directory
        return None


def _write_key(path: Path) -> None:
    temporary = path.with_name(f".key.{secrets.token_hex(8)}")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(secrets.token_bytes(32))
    try:
        os.link(temporary, path)  # fails if another process was faster
    except FileExistsError:
        pass
    finally:
        temporary.unlink()
