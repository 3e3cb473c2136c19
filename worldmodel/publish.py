"""Upload a run to the Hugging Face Hub with a model card; `worldmodel.hub` downloads runs."""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worldmodel.config import Config, dump, override, validate
from worldmodel.errors import RunError
from worldmodel.files import save_safetensors, write_json, write_text
from worldmodel.hub import (
    MAX_BYTES,
    PICTURES,
    RESULTS,
    HubReference,
    hub_api,
    hub_errors,
    require_login,
    require_size,
)
from worldmodel.model_card import model_card
from worldmodel.registry import POLICIES, is_reference
from worldmodel.run import Run

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_LICENSE = re.compile(r"[a-z0-9][a-z0-9.-]{0,49}")
_HIDDEN = "unpublished"


def push(
    run: Run | str | Path,
    repo: str,
    *,
    private: bool = False,
    revision: str | None = None,
    license: str = "mit",
    dry_run: str | Path | None = None,
) -> dict[str, Any]:
    """Upload a finished run to the Hugging Face Hub, with a model card.

    The repository is created if it does not exist. All files change in one commit. The training
    data, checkpoints and agents are not uploaded, and neither are the paths in the configuration.

    Args:
        run: a finished run.
        repo: ``user/name``.
        private: create a private repository; refused if a public one exists.
        revision: branch to upload to, created if it does not exist; None for the main branch.
        license: identifier of the licence on the Hub.
        dry_run: write the files into this new or empty directory instead, without any network
            access.

    Returns:
        ``repo``, ``files`` (name -> bytes), and ``directory`` of a dry run, or ``url`` and
        ``commit`` of an upload.

    Raises:
        MissingLibraryError: If a library of the extra `hub` is not installed.
        RunError: If the run is not finished or damaged, the name is invalid, nobody is logged in,
            or the Hub refuses the upload or cannot be reached.
    """
    reference = HubReference.parse(repo if revision is None else f"{repo}@{revision}")
    if not _LICENSE.fullmatch(license):
        raise RunError(f"license is {license!r}; expected an identifier, e.g. mit or cc-by-4.0")
    opened = run if isinstance(run, Run) else Run(run, "cpu")
    _require_finished(opened)
    if dry_run is not None:
        folder = _empty_directory(Path(dry_run))
        _pack(opened, folder, reference, license)
        return {"repo": str(reference), "files": _sizes(folder), "directory": str(folder)}
    with hub_errors(reference):
        api = hub_api()
        require_login()
    with tempfile.TemporaryDirectory() as name:
        _pack(opened, Path(name), reference, license)
        with hub_errors(reference):
            return _upload(api, Path(name), reference, private)


def _require_finished(run: Run) -> None:
    """Check that a run has been trained and evaluated."""
    run.read_spec()
    if not run.finished:
        raise RunError(f"{run.path} is not evaluated yet; run `worldmodel evaluate {run.path}`")


def _empty_directory(folder: Path) -> Path:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RunError(f"{folder} is not an empty directory; name a new one for --dry-run")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _upload(api: HfApi, folder: Path, reference: HubReference, private: bool) -> dict[str, Any]:
    api.create_repo(reference.repo, private=private or None, exist_ok=True)
    if private and not api.model_info(reference.repo).private:
        raise RunError(
            f"hf://{reference.repo} exists and is public; make it private in its settings on the "
            "Hub, or push to another name"
        )
    if reference.revision is not None:
        api.create_branch(reference.repo, branch=reference.revision, exist_ok=True)
    commit = api.upload_folder(
        repo_id=reference.repo,
        folder_path=folder,
        revision=reference.revision,
        commit_message="Upload a world model",
        delete_patterns=list(MAX_BYTES),
    )
    url = f"{api.endpoint}/{reference.repo}"
    return {"repo": str(reference), "files": _sizes(folder), "url": url, "commit": commit.oid}


def _sizes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in sorted(folder.iterdir())}


def _pack(run: Run, folder: Path, reference: HubReference, license: str) -> None:
    """Write the files of a repository."""
    model, metrics, config = run.model, run.metrics, _public_config(run.config)
    write_text(folder / "config.yaml", dump(config))
    write_text(folder / "spec.json", model.spec.model_dump_json(indent=2) + "\n")
    write_json(folder / "metrics.json", metrics.to_dict())
    parts = {name: part.state_dict() for name, part in model.parts().items()}
    save_safetensors(folder / "model.safetensors", parts)
    if model.domain is not None and model.starts is not None:
        imagination = {"starts": model.starts, "domain": model.domain.state_dict()}
        save_safetensors(folder / "imagination.safetensors", imagination)
    if run.probe is not None:
        save_safetensors(folder / "probe.safetensors", run.probe.state())
    pictures = [name for name in PICTURES if (run.path / name).is_file()]
    for name in pictures:
        shutil.copyfile(run.path / name, folder / name)
    for name, size in _sizes(folder).items():
        require_size(name, size, run.path)
    card = model_card(metrics, config, model.spec, reference, license, pictures)
    write_text(folder / "README.md", card)


def _public_config(config: Config) -> Config:
    """Leave out what concerns this machine: directories, device, trackers, paths of data.

    A path becomes ``unpublished/`` and its last part, which names no file of others.
    """
    data = {
        "dir": "data",
        "policy": _public_name(config.data.policy),
        "sources": [_public_name(source) for source in config.data.sources],
    }
    changes = {"data": data, "output_dir": str(RESULTS), "device": "auto", "trackers": []}
    return validate(override(config.model_dump(mode="json"), changes))


def _public_name(value: str) -> str:
    known = value in POLICIES.names or value == "recorded" or value.startswith("minari:")
    return value if known or is_reference(value) else f"{_HIDDEN}/{Path(value).name}"
