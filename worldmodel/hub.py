"""Runs on the Hugging Face Hub, named ``hf://user/name``: downloaded, checked and unpacked.

A repository holds the files of `MAX_BYTES` and a model card. Weights are safetensors, so nothing in
a repository is unpickled, and other files are not downloaded. A downloaded run is unsigned, see
`worldmodel.trust`. `worldmodel.publish` uploads runs.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worldmodel.errors import ConfigError, MissingLibraryError, RunError
from worldmodel.extras import require
from worldmodel.files import load_safetensors, read_json, save_tensors, write_json

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from torch import Tensor

PICTURES = ("forecast.mp4", "reconstruction.png", "forecast.png")
MAX_BYTES: dict[str, int] = {
    "config.yaml": 2**20,
    "spec.json": 2**20,
    "metrics.json": 2**26,
    "model.safetensors": 2**32,
    "imagination.safetensors": 2**28,
    "probe.safetensors": 2**28,
    **dict.fromkeys(PICTURES, 2**28),
}
"""The files of a repository that are downloaded -> their largest size."""

RESULTS = Path("results")
"""Where downloaded runs are put."""

_REQUIRED = ("config.yaml", "spec.json", "model.safetensors")
_SOURCE = "hub.json"
"""File of a downloaded run with its repository and commit."""
_PREFIX = re.compile(r"hf:(/{1,2}|$)")  # pathlib merges slashes
_NAME = re.compile(r"(?!.*(?:--|\.\.))\w[\w.-]{0,95}/\w[\w.-]{0,95}", re.ASCII)
_REVISION = re.compile(r"(?!.*\.\.)\w[\w./-]{0,199}", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHORT_COMMIT = 12
_MAX_DEPTH = 20


@dataclass(frozen=True)
class HubReference:
    """A repository of models, as in ``hf://user/name@revision``.

    Attributes:
        repo: ``user/name``.
        revision: branch, tag or commit; None for the main branch.
    """

    repo: str
    revision: str | None = None

    @classmethod
    def parse(cls, text: str) -> HubReference:
        """Read ``user/name``, with or without ``hf://`` and ``@revision``.

        Raises:
            RunError: If it is no such name.
        """
        repo, at, revision = _PREFIX.sub("", text, count=1).partition("@")
        if not _NAME.fullmatch(repo) or (at and not _REVISION.fullmatch(revision)):
            written = _PREFIX.sub("hf://", text, count=1)
            raise RunError(
                f"{written!r} does not name a repository of the Hugging Face Hub; expected "
                "hf://user/name or hf://user/name@revision"
            )
        return cls(repo, revision or None)

    def __str__(self) -> str:
        return f"hf://{self.repo}" + (f"@{self.revision}" if self.revision else "")


def is_hub_reference(path: str | Path) -> bool:
    """Whether a path is ``hf://user/name``, also after pathlib merged its slashes."""
    return _PREFIX.match(str(path)) is not None


def local_path(path: str | Path) -> Path:
    """Return the directory of a run; one that is named ``hf://user/name`` is downloaded first.

    The files are downloaded into the cache of `huggingface_hub`, and unpacked into the run
    directory ``results/user--name--<commit>`` of the working directory, once for each commit.

    Raises:
        MissingLibraryError: If `huggingface_hub` is not installed.
        RunError: If there is no such repository, it is no intact run, or it cannot be reached.
    """
    if not is_hub_reference(path):
        return Path(path)
    reference = HubReference.parse(str(path))
    with hub_errors(reference):
        commit, files = _download(reference)
    user, name = reference.repo.split("/")
    directory = RESULTS / f"{user}--{name}--{commit[:_SHORT_COMMIT]}"
    source = {"repo": reference.repo, "commit": commit}
    if not directory.exists():
        _unpack(files, directory, source, reference)
        _report(f"{reference} is now in {directory}")
    elif not (directory / _SOURCE).is_file() or read_json(directory / _SOURCE, "") != source:
        raise RunError(f"{directory} exists and is not a copy of {reference}; rename it")
    return directory


def _report(text: str) -> None:
    from rich.console import Console

    Console(stderr=True).print(text, markup=False, highlight=False, soft_wrap=True)


def hub_api() -> HfApi:
    """Make a client; the environment variables of `huggingface_hub` apply.

    Raises:
        MissingLibraryError: If the library is not installed.
    """
    api: HfApi = _library().HfApi(
        endpoint=os.environ.get("HF_ENDPOINT") or None,
        library_name="worldmodel",
    )
    return api


def require_login() -> None:
    """Check that there is a token.

    Raises:
        RunError: If there is none.
    """
    if _library().get_token() is None:
        raise RunError(
            "you are not logged in to the Hugging Face Hub; run `hf auth login`, or set HF_TOKEN "
            "to a token with write access from https://huggingface.co/settings/tokens"
        )


@contextmanager
def hub_errors(reference: HubReference) -> Iterator[None]:
    """Turn the errors of `huggingface_hub` into one line that says what to do.

    Raises:
        MissingLibraryError: If it is not installed.
        RunError: For any other error.
    """
    try:
        yield
    except (RunError, ConfigError, MissingLibraryError):
        raise
    except Exception as error:  # its HTTP library raises types of its own
        raise RunError(_explain(error, reference)) from error


def _explain(error: Exception, reference: HubReference) -> str:
    kinds = {kind.__name__ for kind in type(error).__mro__}
    status = getattr(getattr(error, "response", None), "status_code", None)
    if "OfflineModeIsEnabled" in kinds:
        return f"{reference} needs the network, and HF_HUB_OFFLINE is set; unset it"
    if "GatedRepoError" in kinds:
        return f"{reference} is gated; request access on its page on the Hub"
    if "RevisionNotFoundError" in kinds:
        return (
            f"{reference.repo} has no revision {reference.revision}; look at its branches and tags"
        )
    if "RepositoryNotFoundError" in kinds or status == 404:
        return (
            f"there is no {reference} on the Hugging Face Hub, or it is private; check the name, "
            "and log in with `hf auth login` if it is private"
        )
    if status == 401:
        return "the Hugging Face Hub does not accept your token; log in with `hf auth login`"
    if status == 403:
        return f"your token may not write to {reference}; use one with write access to it"
    if "TransportError" in kinds or "LocalEntryNotFoundError" in kinds:
        return (
            f"cannot reach the Hugging Face Hub for {reference} ({_first_line(error)}); check the "
            "network, or set HF_HUB_OFFLINE=1 to use a cached copy"
        )
    return f"{reference}: {type(error).__name__}: {_first_line(error)}"


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _library() -> Any:
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    require("huggingface_hub.constants", "hub")
    return require("huggingface_hub", "hub")


def _download(reference: HubReference) -> tuple[str, dict[str, Path]]:
    """Download the files of a run into the cache, or find them there in offline mode.

    Returns:
        The commit, and the path of each file in the cache.

    Raises:
        RunError: If a file is missing or too large.
    """
    if _library().constants.HF_HUB_OFFLINE:
        files = _cached(reference)
    else:
        api = hub_api()
        info = api.model_info(reference.repo, revision=reference.revision, files_metadata=True)
        sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
        _require_run(sizes, reference)
        for name in MAX_BYTES.keys() & sizes.keys():
            require_size(name, sizes[name], reference)
        files = {
            name: Path(api.hf_hub_download(reference.repo, name, revision=reference.revision))
            for name in MAX_BYTES
            if name in sizes
        }
    commits = {path.parent.name for path in files.values()}
    commit = commits.pop()
    if commits:
        raise RunError(f"{reference} changed during the download; try again")
    if not _COMMIT.fullmatch(commit):
        raise RunError(f"{reference} has the commit {commit!r}; expected 40 hexadecimal digits")
    return commit, files


def _cached(reference: HubReference) -> dict[str, Path]:
    find = _library().try_to_load_from_cache
    paths = {name: find(reference.repo, name, revision=reference.revision) for name in MAX_BYTES}
    files = {name: Path(path) for name, path in paths.items() if isinstance(path, str)}
    if not files:
        raise RunError(
            f"{reference} is not in the cache, and HF_HUB_OFFLINE is set; unset it to download"
        )
    _require_run(files, reference)
    return files


def _require_run(names: Iterable[str], reference: HubReference) -> None:
    if missing := [name for name in _REQUIRED if name not in names]:
        raise RunError(
            f"{reference} is not a run: it has no {', '.join(missing)}; expected a repository that "
            "`worldmodel push` made"
        )


def require_size(name: str, size: int, place: object) -> None:
    """Check the size of a file of a repository.

    Raises:
        RunError: If it is larger than `MAX_BYTES`.
    """
    if size > MAX_BYTES.get(name, size):
        raise RunError(
            f"{name} of {place} has {size / 2**20:,.0f} MB; expected at most "
            f"{MAX_BYTES[name] / 2**20:,.0f} MB"
        )


def _unpack(
    files: Mapping[str, Path], directory: Path, source: dict[str, str], reference: HubReference
) -> None:
    """Make a run directory of downloaded files, completely or not at all."""
    temporary = directory.with_name(f".{directory.name}.{secrets.token_hex(8)}")
    try:
        (temporary / "models").mkdir(parents=True)
        for name, path in files.items():
            require_size(name, path.stat().st_size, reference)
            _unpack_file(name, path, temporary)
        _check(temporary, reference)
        write_json(temporary / _SOURCE, source)
        if not directory.exists():  # another process may have been faster
            temporary.rename(directory)
    except OSError as error:
        raise RunError(f"cannot write {directory} ({error.strerror})") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _unpack_file(name: str, path: Path, directory: Path) -> None:
    models = directory / "models"
    if name == "model.safetensors":
        from worldmodel.models import WorldModel

        for part, state in _by_first_key(load_safetensors(path)).items():
            if part not in WorldModel.PARTS:
                raise RunError(f"{name} holds {part!r}, which is no part of a world model")
            save_tensors(models / f"{part}.pth", state)
    elif name == "imagination.safetensors":
        save_tensors(models / "imagination.pt", _by_first_key(load_safetensors(path)))
    elif name == "probe.safetensors":
        save_tensors(models / "probe.pt", _by_first_key(load_safetensors(path)))
    else:
        shutil.copyfile(path, models / name if name == "spec.json" else directory / name)


def _by_first_key(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Nest ``first.rest`` keys once; keys without a dot stay as they are."""
    nested: dict[str, Any] = {}
    for key, tensor in tensors.items():
        first, dot, rest = key.partition(".")
        if not dot:
            nested[first] = tensor
        elif isinstance(nested.setdefault(first, {}), dict):
            nested[first][rest] = tensor
        else:
            raise RunError(f"{first!r} is both a tensor and a group of tensors")
    return nested


def _check(directory: Path, reference: HubReference) -> None:
    """Check the configuration and the spec of a downloaded run; neither is used."""
    import yaml

    from worldmodel.run_directory import RunDirectory

    try:
        _require_plain_yaml(directory / "config.yaml")
        run = RunDirectory(directory)
        run.read_config()
        run.parse_spec()
    except (RunError, yaml.YAMLError, RecursionError) as error:
        text = str(error).replace(f"{directory}/", "")
        raise RunError(f"{reference} is not an intact run: {text}") from error


def _require_plain_yaml(path: Path) -> None:
    """Refuse YAML that takes much longer to read than it is long."""
    import yaml

    depth = 0
    for event in yaml.parse(path.read_bytes()):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.AliasEvent) or depth > _MAX_DEPTH:
            raise RunError(f"{path.name} has aliases, or more than {_MAX_DEPTH} levels")
