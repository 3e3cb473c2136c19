"""Runs on the Hugging Face Hub: pushed and downloaded without loss, and no harm from strangers."""

import json
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from hub_server import READ_TOKEN, TOKEN, Repo, serving
from typer.testing import CliRunner

import worldmodel
from worldmodel.cli import app
from worldmodel.config import from_options, override
from worldmodel.errors import RunError
from worldmodel.extras import install_command
from worldmodel.files import load_safetensors, save_safetensors
from worldmodel.hub import MAX_BYTES
from worldmodel.run import Run
from worldmodel.trust import is_signed

constants = pytest.importorskip("huggingface_hub.constants")
pytest.importorskip("safetensors")

NAME = "hf://alice/pendulum"


class Payload:
    """Creates a file when it is unpickled."""

    def __reduce__(self):
        return (Path("executed").touch, ())


@pytest.fixture(scope="module")
def server():
    with serving() as hub:
        yield hub


@pytest.fixture
def hub(server, tmp_path, monkeypatch):
    """An empty hub; the working directory, the cache and the login are the test's own."""
    server.repos, server.downloaded, server.sizes, server.siblings = {}, [], {}, []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    return server


@pytest.fixture(scope="module")
def packed(driven_run, tmp_path_factory):
    """The files of a repository."""
    folder = tmp_path_factory.mktemp("packed") / "files"
    worldmodel.push(driven_run, NAME, dry_run=folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def repo(hub, packed):
    """A repository with a run, made by somebody else."""
    hub.repos["alice/pendulum"] = Repo()
    hub.repos["alice/pendulum"].commit(dict(packed))
    return hub.repos["alice/pendulum"]


def invoke(*words):
    result = CliRunner().invoke(app, [str(word) for word in words])
    return result.exit_code, result.stdout, result.stderr


def change(repo, name, convert):
    (sha,) = (repo.branches["main"],)
    repo.commit(repo.commits[sha] | {name: convert(repo.commits[sha][name])})


def change_config(repo, changes):
    def convert(data):
        return yaml.safe_dump(override(yaml.safe_load(data), changes)).encode()

    change(repo, "config.yaml", convert)


def tensors(value, prefix=""):
    for key, item in value.items():
        if isinstance(item, dict):
            yield from tensors(item, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", item


def test_a_run_is_pushed_and_downloaded_without_loss(hub, driven_run):
    status, stdout, _ = invoke("push", driven_run, "alice/pendulum", "--private", "--json")
    assert status == 0
    pushed = json.loads(stdout)
    repo = hub.repos["alice/pendulum"]
    assert repo.private
    assert repo.branches["main"] == pushed["commit"]
    assert repo.commits[pushed["commit"]].keys() == pushed["files"].keys()
    assert pushed["files"].keys() == {*MAX_BYTES, "README.md"}
    run = Run(NAME)
    assert run.path == Path("results") / f"alice--pendulum--{pushed['commit'][:12]}"
    originals = sorted((driven_run / "models").glob("*.p*t*"))
    assert len(originals) == 8
    for path in originals:
        before = dict(tensors(torch.load(path, weights_only=True)))
        after = dict(tensors(torch.load(run.path / "models" / path.name, weights_only=True)))
        assert before.keys() == after.keys()
        for key, value in before.items():
            assert torch.equal(value, after[key]), key
            assert value.dtype == after[key].dtype
    assert run.metrics == Run(driven_run).metrics
    assert run.probe is not None
    assert run.config.phase1 == Run(driven_run).config.phase1
    assert run.imagine(2).reset(seed=0)[0].shape == (2, 8)
    assert worldmodel.load(NAME).spec == run.model.spec


def test_a_push_replaces_all_files_and_keeps_other_branches(hub, driven_run, run_path):
    worldmodel.push(driven_run, NAME)
    (run_path / "models" / "probe.pt").unlink()
    worldmodel.push(run_path, "alice/pendulum", revision="no-probe")
    repo = hub.repos["alice/pendulum"]
    assert "probe.safetensors" in repo.files("main")[1]
    assert "probe.safetensors" not in repo.files("no-probe")[1]
    assert Run(f"{NAME}@no-probe").probe is None
    assert Run(f"{NAME}@{repo.branches['main']}").probe is not None


def test_a_private_push_into_a_public_repository_is_refused(repo, driven_run):
    with pytest.raises(RunError, match="exists and is public"):
        worldmodel.push(driven_run, NAME, private=True)
    assert len(repo.commits) == 2


def test_a_dry_run_needs_no_network_and_names_no_path_of_this_machine(
    driven_run, tmp_path, monkeypatch
):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    folder = tmp_path / "out"
    status, _, _ = invoke("push", driven_run, "alice/pendulum", "--dry-run", folder)
    assert status == 0
    config = (folder / "config.yaml").read_text()
    assert str(Run(driven_run).config.data.dir) not in config
    assert str(driven_run.parent) not in config
    assert "library_name: worldmodel" in (folder / "README.md").read_text()
    with pytest.raises(RunError, match="is not an empty directory"):
        worldmodel.push(driven_run, NAME, dry_run=folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda path: (path / "metrics.json").unlink(),
            "is not evaluated yet; run `worldmodel",
        ),
        (lambda path: shutil.rmtree(path / "models"), "holds no model yet"),
        (shutil.rmtree, "is not a run directory"),
    ],
)
def test_a_run_that_cannot_be_published_leaves_no_directory(driven_run, tmp_path, change, message):
    path = shutil.copytree(driven_run, tmp_path / "run")
    change(path)
    with pytest.raises(RunError, match=message):
        worldmodel.push(path, NAME, dry_run=tmp_path / "card")
    assert not (tmp_path / "card").exists()


@pytest.mark.parametrize("name", ["hf://user", "hf://a/b/c", "hf://"])
def test_a_wrong_name_is_repeated_as_it_was_written(name):
    status, _, error = invoke("info", name)
    assert status == 1
    assert f"{name!r} does not name a repository" in error


def test_paths_of_policies_and_data_are_not_published(run, tmp_path):
    data = {"policy": str(tmp_path / "agent.zip"), "sources": [str(tmp_path), "minari:a/b-v0"]}
    worldmodel.push(run.with_settings({"data": data}), NAME, dry_run=tmp_path / "out")
    published = yaml.safe_load((tmp_path / "out" / "config.yaml").read_text())["data"]
    assert published["policy"] == "unpublished/agent.zip"
    assert published["sources"] == [f"unpublished/{tmp_path.name}", "minari:a/b-v0"]


def test_other_files_of_a_repository_are_not_downloaded(hub, repo, tmp_path):
    evil = pickle.dumps(Payload())
    files = dict.fromkeys(("encoder.pth", "models/encoder.pth", "checkpoint.pt", "rl/a.zip"), evil)
    files |= {"signature": b"0", "report.html": b"<script>", "../../evil": b"x", "/evil": b"x"}
    repo.commit(repo.files("main")[1] | files)
    run = Run(NAME)
    assert run.model is not None
    assert set(hub.downloaded) == set(MAX_BYTES)
    assert not is_signed(run.path)
    names = {str(path.relative_to(run.path)) for path in run.path.rglob("*") if path.is_file()}
    assert not names & files.keys() - {"models/encoder.pth"}
    assert not any(path.is_symlink() for path in run.path.rglob("*"))
    assert {path.name for path in tmp_path.iterdir()} == {"cache", "results"}


def bomb(_):
    levels = "\n".join(f"  k{i}: &k{i} [{', '.join([f'*k{i - 1}'] * 9)}]" for i in range(1, 9))
    return f"env:\n  kwargs:\n    k0: &k0 [x]\n{levels}".replace("\n  k", "\n    k").encode()


POISONED = {
    "model.safetensors": {
        "a pickle": (lambda _: pickle.dumps(Payload()), "not an intact safetensors"),
        "a checkpoint with a pickle": (lambda _: b"PK\3\4" + bytes(999), "not an intact"),
        "a link": (lambda _: b"/etc/passwd", "not an intact"),
        "a huge header": (lambda d: b"\xff" * 7 + b"\0" + d[8:], "not an intact"),
    },
    "config.yaml": {
        "a bomb": (bomb, "has aliases"),
        "nested": (lambda _: b"[" * 100_000, "more than 20 levels"),
        "code": (lambda _: b"!!python/object/apply:os.system [ls]", "is not an intact run"),
        "a link": (lambda _: b"../../config.yaml", "is not an intact run"),
    },
    "spec.json": {
        "a huge model": (lambda d: d.replace(b'"hidden": 32', b'"hidden": 99999999'), "hidden"),
        "nested": (lambda _: b"[" * 10_000, "is not an intact run"),
    },
}


@pytest.mark.parametrize(
    ("name", "kind"), [(name, kind) for name, kinds in POISONED.items() for kind in kinds]
)
def test_poisoned_repositories_are_refused(repo, tmp_path, name, kind):
    convert, message = POISONED[name][kind]
    change(repo, name, convert)
    with pytest.raises(RunError, match=message):
        Run(NAME)
    assert not (tmp_path / "executed").exists()
    assert not list(tmp_path.glob("results/*"))


def changed_tensors(data, tmp_path, convert):
    path = tmp_path / "changed"
    path.write_bytes(data)
    content = load_safetensors(path)
    convert(content)
    save_safetensors(path, content)
    return path.read_bytes()


def test_weights_that_do_not_fit_the_spec_are_refused(repo, tmp_path):
    def cut(content):
        key = next(key for key in content if key.startswith("predictor."))
        content[key] = content[key][:1]

    change(repo, "model.safetensors", lambda data: changed_tensors(data, tmp_path, cut))
    with pytest.raises(RunError, match=r"predictor\.pth does not fit models/spec\.json"):
        worldmodel.load(NAME)


def test_weights_of_an_unknown_part_are_refused(repo, tmp_path):
    def rename(content):
        content["../../evil.weight"] = torch.zeros(1)

    change(repo, "model.safetensors", lambda data: changed_tensors(data, tmp_path, rename))
    with pytest.raises(RunError, match="is no part of a world model"):
        Run(NAME)
    assert not list(tmp_path.glob("evil*"))


@pytest.mark.parametrize("honest", [True, False])
def test_files_that_are_too_large_are_refused(hub, repo, tmp_path, monkeypatch, honest):
    monkeypatch.setitem(MAX_BYTES, "metrics.json", 100)
    if not honest:
        hub.sizes["metrics.json"] = 1
    with pytest.raises(RunError, match=r"metrics\.json of hf://alice/pendulum has .* at most"):
        Run(NAME)
    assert bool(hub.downloaded) != honest
    assert not list(tmp_path.glob("results/*"))


def test_a_repository_without_a_run_is_refused(hub, repo):
    repo.commit({"README.md": b"# A language model"})
    with pytest.raises(RunError, match=r"is not a run: it has no config\.yaml, spec\.json"):
        Run(NAME)
    assert hub.downloaded == []


@pytest.mark.parametrize(
    "changes",
    [
        {"env": {"id": "payload:Boom"}},
        {"data": {"dir": "/somewhere"}},
        {"data": {"policy": "hf://mallory/agent"}},
    ],
)
def test_a_downloaded_run_is_not_trusted(repo, changes):
    change_config(repo, changes)
    run = Run(NAME)
    with pytest.raises(RunError, match=r"has no valid signature.*--trust"):
        _ = run.config


def test_commands_write_into_a_copy_that_is_made_once(hub, repo, tmp_path):
    status, stdout, stderr = invoke("rollout", NAME, "--steps", 2, "--json")
    assert status == 0, stderr
    copy = Path("results") / f"alice--pendulum--{repo.branches['main'][:12]}"
    assert f"{NAME} is now in {copy}" in stderr
    assert json.loads(stdout)["video"] == str(copy / "rollout.mp4")
    assert (copy / "rollout.mp4").is_file()
    assert not list((tmp_path / "cache").rglob("rollout.mp4"))
    count = len(hub.downloaded)
    status, _, stderr = invoke("info", "--check", NAME)
    assert (status, stderr) == (0, "")
    assert len(hub.downloaded) == count
    shutil.rmtree(copy)
    copy.mkdir()
    with pytest.raises(RunError, match="exists and is not a copy"):
        Run(NAME)


def test_an_evaluation_collects_the_data_again(repo):
    run = Run(NAME, "cpu")
    (run.path / "metrics.json").unlink()
    assert run.evaluate(reference_updates=0).data.heldout_episodes == 8
    assert (run.path / "report.html").is_file()


def test_offline_mode_uses_the_cache(hub, repo, tmp_path, monkeypatch):
    Run(NAME)
    repo.commit({})
    shutil.rmtree("results")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert Run(NAME).model is not None
    for other in (f"{NAME}@v2", "hf://alice/other"):
        status, _, stderr = invoke("info", other)
        assert status == 1
        assert stderr == (
            f"Error: {other} is not in the cache, and HF_HUB_OFFLINE is set; unset it to download\n"
        )


def test_a_policy_from_the_hub_is_pinned_to_its_commit(repo):
    policy = from_options(policy=NAME)["data"]["policy"]
    assert policy == f"results/alice--pendulum--{repo.branches['main'][:12]}"


@pytest.mark.parametrize(
    ("words", "setting", "message"),
    [
        (("info", "hf://alice/other"), {}, "there is no hf://alice/other"),
        (("info", "hf://alice/secret"), {"HF_TOKEN": ""}, "there is no hf://alice/secret"),
        (("info", f"{NAME}@v9"), {}, "has no revision v9"),
        (("info", NAME), {"HF_ENDPOINT": "http://127.0.0.1:9"}, "cannot reach the Hugging Face"),
        (("info", "hf://alice"), {}, "expected hf://user/name"),
        (("info", "hf://alice/../x"), {}, "expected hf://user/name"),
        (("train", "--resume", NAME), {}, f"{NAME} cannot be resumed"),
        (("push", "RUN", "name"), {}, "expected hf://user/name"),
        (("push", "RUN", "alice/x", "--license", "a\nb: c"), {}, "license is 'a.*b: c'"),
        (("push", "RUN", "alice/x"), {"HF_TOKEN": ""}, "not logged in.*hf auth login"),
        (("push", "RUN", "alice/x"), {"HF_TOKEN": "hf_bad"}, "does not accept your token"),
        (("push", "RUN", "alice/x"), {"HF_TOKEN": READ_TOKEN}, "may not write"),
        (("push", "RUN", "alice/x"), {"HF_ENDPOINT": "http://127.0.0.1:9"}, "cannot reach"),
    ],
)
def test_errors_are_one_line(hub, repo, driven_run, monkeypatch, words, setting, message):
    hub.repos["alice/secret"] = Repo(private=True)
    for name, value in setting.items():
        monkeypatch.setenv(name, value)
    status, stdout, stderr = invoke(*(driven_run if word == "RUN" else word for word in words))
    assert (status, stdout) == (1, "")
    assert re.fullmatch(f"Error: .*{message}.*\n", stderr)


@pytest.mark.parametrize("library", ["huggingface_hub", "safetensors"])
def test_a_missing_extra_is_named(repo, driven_run, monkeypatch, library):
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.delitem(sys.modules, "safetensors.torch", raising=False)
    for words in (("info", NAME), ("push", driven_run, NAME)):
        status, _, stderr = invoke(*words)
        assert status == 1
        assert stderr.strip() == (
            f"Error: {library} is not installed; install it with: {install_command('hub')}"
        )


def test_the_package_loads_no_network_library():
    code = (
        "import sys, worldmodel, worldmodel.options, worldmodel.hub; "
        "print({'torch', 'huggingface_hub', 'safetensors', 'wandb', 'trackio'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
