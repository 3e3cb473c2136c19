"""Trust: an untrusted run imports no code and writes to no directory that it names.

The configuration of a run may name code, as in ``env.id: mypackage.envs:MyEnv``. Reading it runs
nothing, but using the run imports that module. So `Run` uses such a configuration only if it was
written on this machine by you, or if you accept it with ``--trust``, ``trust=True``, or the
environment variable ``WORLDMODEL_TRUST=1``. The run is then signed.

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
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from worldmodel.errors import RunError
from worldmodel.files import write_text
from worldmodel.hub import is_hub_reference
from worldmodel.registry import is_reference

if TYPE_CHECKING:
    from worldmodel.config import Config
    from worldmodel.models import ModelSpec

_VARIABLE = "WORLDMODEL_TRUST"
_SIGNED = ("config.yaml", "models/spec.json")
_KEY_BYTES = 32


def trust_all() -> None:
    """Trust every run, in this process and those that it starts."""
    os.environ[_VARIABLE] = "1"


def trusts_all() -> bool:
    """Whether the user trusts every run and agent."""
    return os.environ.get(_VARIABLE, "").lower() in ("1", "true", "yes")


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


def require_trust(path: Path, named: Iterator[str], *, trusted: bool = False) -> None:
    """Check that a run may be used; one that the user trusts is signed.

    Args:
        path: the run directory.
        named: the code and directories that it names, as in ``"env.id: mypackage.envs:MyEnv"``.
        trusted: whether the user trusts this run.

    Raises:
        RunError: If it is neither signed nor trusted, and names anything or has a link in it.
    """
    if is_signed(path):
        return
    found = list(named)
    if trusted or trusts_all():
        if found:
            with suppress(OSError):  # a directory that cannot be written to stays unsigned
                sign(path)
        return
    require_no_links(path)
    if found:
        raise RunError(
            f"{path} has no valid signature, because it comes from somebody else or another "
            "machine, or its config.yaml was edited, and it names code to import, runs "
            f"to download, trackers to log to or directories to write to ({'; '.join(found)}); "
            "if you trust it, add --trust (in Python: Run(path, trust=True), or the environment "
            "variable WORLDMODEL_TRUST=1)"
        )


def named_by_config(config: Config) -> Iterator[str]:
    """List the code, the services and the directories that a configuration names."""
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
        yield from (f"{key}: {value}" for value in values if _names_code(value))
    if is_hub_reference(config.data.policy):
        yield f"data.policy: {config.data.policy}"
    for tracker in config.trackers:
        if tracker != "tensorboard":
            yield f"trackers: {tracker}"
    if _leads_elsewhere(config.data.dir):
        yield f"data.dir: {config.data.dir}"


def named_by_spec(spec: ModelSpec) -> Iterator[str]:
    """List the code that the spec of a model names."""
    for key in ("encoder", "decoder", "predictor"):
        if _names_code(getattr(spec, key)):
            yield f"{key} in models/spec.json: {getattr(spec, key)}"


def _leads_elsewhere(path: Path) -> bool:
    """Whether a path is not below the current directory, links resolved."""
    return not path.resolve().is_relative_to(Path.cwd().resolve())


def _names_code(value: str) -> bool:
    return is_reference(value) and not value.startswith(("minari:", "worldmodel."))


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
        key = path.read_bytes()
        return key if len(key) == _KEY_BYTES else None
    except (OSError, RuntimeError):  # RuntimeError: there is no home directory
        return None


def _write_key(path: Path) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:  # another process was faster
        return
    with os.fdopen(descriptor, "wb") as file:
        file.write(secrets.token_bytes(_KEY_BYTES))
        file.flush()
        os.fsync(file.fileno())
