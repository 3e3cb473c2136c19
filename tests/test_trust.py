"""A stranger's run imports no code and writes to no directory of its choice without consent."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import pytest
import yaml
from typer.testing import CliRunner

import worldmodel
from worldmodel.agent_config import AgentConfig
from worldmodel.cli import app
from worldmodel.config import build_config, override
from worldmodel.errors import RunError
from worldmodel.rl.agents import results_folder
from worldmodel.run import Run
from worldmodel.trust import is_signed, sign

PAYLOAD = """
from pathlib import Path
Path(__file__).with_name("executed").touch()
Boom = None
"""
NAMED = {
    "env.id: class": {"env": {"id": "payload:Boom"}},
    "env.id: module": {"env": {"id": "payload:CartPole-v1"}},
    "env.wrappers": {"env": {"wrappers": ["payload:Boom"]}},
    "data.policy": {"data": {"policy": "payload:Boom"}},
    "data.sources": {"data": {"sources": ["payload:Boom"]}},
    "model.encoder": {"model": {"encoder": "payload:Boom"}},
    "model.decoder": {"model": {"decoder": "payload:Boom"}},
    "model.predictor": {"model": {"predictor": "payload:Boom"}},
    "objective.name": {"objective": {"name": "payload:Boom"}},
    "evaluation.readout": {"evaluation": {"readout": "payload:Boom"}},
    "planning.method": {"planning": {"method": "payload:Boom"}},
}
USES = {
    "load": worldmodel.load,
    "config": lambda path: Run(path).config,
    "make_env": worldmodel.make_env,
    "latent env": lambda path: gym.make("worldmodel/Latent-v0", run=str(path), starts="resets"),
    "resume": lambda path: worldmodel.resume(path, progress=False),
}
COMMANDS = [
    ("evaluate", "RUN"),
    ("rollout", "RUN"),
    ("play", "RUN"),
    ("plan", "RUN"),
    ("plan", "RUN", "--goals", "heldout"),
    ("rl", "RUN"),
    ("rl", "compare", "RUN"),
    ("train", "--resume", "RUN"),
    ("info", "--check", "RUN"),
]


@pytest.fixture
def payload(tmp_path, monkeypatch):
    """A module that leaves a file when it is imported."""
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "payload.py").write_text(PAYLOAD)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delenv("WORLDMODEL_TRUST", raising=False)
    yield folder / "executed"
    sys.modules.pop("payload", None)


@pytest.fixture
def stranger(run_path):
    """A run as it comes from somebody else: with a signature under another key."""
    (run_path / "signature").write_text("0" * 64 + "\n")
    return run_path


def change(path, changes):
    content = yaml.safe_load((path / "config.yaml").read_text())
    (path / "config.yaml").write_text(yaml.safe_dump(override(content, changes)))


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("named", NAMED)
def test_no_code_of_a_strangers_configuration_is_imported(stranger, payload, named, use):
    change(stranger, NAMED[named] | {"data": {"dir": "data"} | NAMED[named].get("data", {})})
    if use == "load":  # needs no more than the spec of the model
        content = json.loads((stranger / "models" / "spec.json").read_text())
        content |= NAMED[named].get("model", {})
        (stranger / "models" / "spec.json").write_text(json.dumps(content))
        if "model" not in NAMED[named]:
            USES[use](stranger)
            assert not payload.exists()
            return
    with pytest.raises(RunError, match=r"has no valid signature.*payload:.*--trust"):
        USES[use](stranger)
    assert not payload.exists()


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_asks_for_trust(stranger, payload, command):
    change(stranger, {"env": {"id": "payload:Boom"}})
    words = [str(stranger) if word == "RUN" else word for word in command]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 1, result.output
    assert "env.id: payload:Boom" in " ".join((result.stdout + result.stderr).split())
    assert not payload.exists()


def test_a_strangers_model_as_policy_needs_trust(stranger, payload, tmp_path):
    spec = stranger / "models" / "spec.json"
    spec.write_text(json.dumps(json.loads(spec.read_text()) | {"encoder": "payload:Boom"}))
    command = ["collect", str(tmp_path / "out"), "--policy", str(stranger)]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 1
    assert "encoder in models/spec.json: payload:Boom" in " ".join(result.stderr.split())
    assert not payload.exists()
    assert not (tmp_path / "out").exists()


def test_a_strangers_run_that_names_no_code_needs_no_trust(stranger):
    change(stranger, {"data": {"dir": "data"}})
    assert worldmodel.load(stranger).spec.encoder == "keypoints"
    worldmodel.make_env(stranger).close()


@pytest.mark.parametrize("folder", ["/somewhere", "../up", "a/../../b"])
def test_a_stranger_chooses_no_directory_to_write_to(stranger, folder):
    change(stranger, {"data": {"dir": folder}})
    with pytest.raises(RunError, match=r"data\.dir: "):
        _ = Run(stranger).config


def test_own_runs_are_signed_and_changes_of_others_are_noticed(driven_run, run_path, payload):
    assert is_signed(driven_run)
    assert is_signed(run_path)  # also as a copy
    change(run_path, {"env": {"id": "payload:Boom"}})
    assert not is_signed(run_path)
    shutil.copy(driven_run / "config.yaml", run_path)
    assert is_signed(run_path)
    run = Run(run_path)
    run.change_config({"planning": {"horizon": 7}})
    assert is_signed(run_path)
    os.environ["XDG_CONFIG_HOME"], before = str(run_path / "other"), os.environ["XDG_CONFIG_HOME"]
    try:
        assert not is_signed(run_path)
        assert not (run_path / "other").exists()
        sign(run_path)
        assert is_signed(run_path)
        assert (run_path / "other" / "worldmodel" / "key").stat().st_mode & 0o77 == 0
    finally:
        os.environ["XDG_CONFIG_HOME"] = before


def test_without_a_place_for_the_key_runs_are_made_and_not_signed(run_path, monkeypatch):
    (run_path / "file").touch()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(run_path / "file"))
    (run_path / "signature").unlink()
    sign(run_path)
    assert not (run_path / "signature").exists()
    assert not is_signed(run_path)


def test_consent_is_a_flag_an_argument_or_a_variable(stranger, payload, monkeypatch):
    change(stranger, {"env": {"wrappers": ["payload:Boom"]}})
    assert Run(stranger, trust=True).config.env.wrappers == ("payload:Boom",)
    assert Run(stranger, trust=True).with_settings({"seed": 3}).config.seed == 3
    (stranger / "signature").unlink()
    monkeypatch.setenv("WORLDMODEL_TRUST", "1")
    assert Run(stranger).config.env.wrappers == ("payload:Boom",)
    assert not payload.exists()
    (stranger / "signature").unlink()
    monkeypatch.setenv("WORLDMODEL_TRUST", "0")
    with pytest.raises(RunError, match="has no valid signature"):
        _ = Run(stranger).config
    result = CliRunner().invoke(app, ["rollout", str(stranger), "--trust"])
    assert payload.exists()
    assert "payload:Boom" in result.stderr


def test_agents_are_not_written_out_of_a_run(run_path, tmp_path):
    outside = tmp_path / "outside"
    (outside / "tensorboard").mkdir(parents=True)
    (run_path / "rl").mkdir()
    (run_path / "rl" / "dream_ppo_64_seed0").symlink_to(outside)
    with pytest.raises(RunError, match=r"dream_ppo_64_seed0 is not in the directory of the run"):
        Run(run_path).train_agent(on="dream", steps=64)
    assert (outside / "tensorboard").exists()
    nested = {"policy_kwargs": {"net_arch": {"/../../../../outside": 1}}}
    (run_path / "rl" / "dream_ppo_64_seed0_kwargs_policy_kwargs_net_arch_").mkdir()
    for on, rounds in (("dream", 0), ("dream", 1)):
        config = AgentConfig(on=on, steps=64, kwargs=nested, loop={"rounds": rounds})
        assert results_folder(Run(run_path), config).parent == run_path / "rl"


def test_links_in_a_strangers_run_are_refused(stranger, tmp_path):
    change(stranger, {"data": {"dir": "data"}})
    (stranger / "metrics.json").rename(tmp_path / "metrics.json")
    (stranger / "metrics.json").symlink_to(tmp_path / "metrics.json")
    with pytest.raises(RunError, match=r"metrics\.json is a link"):
        _ = Run(stranger).config
    assert Run(stranger, trust=True).metrics is not None


def test_a_data_directory_behind_a_link_leads_elsewhere(stranger, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "link").symlink_to(tmp_path.parent)
    change(stranger, {"data": {"dir": "inside/link/sub"}})
    with pytest.raises(RunError, match=r"data\.dir: inside/link/sub"):
        _ = Run(stranger).config


def test_a_damaged_key_signs_nothing(run_path, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "worldmodel").mkdir()
    (tmp_path / "worldmodel" / "key").touch()
    sign(run_path)
    assert not is_signed(run_path)


def test_without_a_key_own_environments_can_still_be_trained(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "file"))
    config = build_config({"env": {"id": "tiny_env:TinyEnv"}, "output_dir": tmp_path / "results"})
    run = Run.create(config)
    assert run.config.env.id == "tiny_env:TinyEnv"


def test_consent_signs_a_run(stranger, payload):
    change(stranger, {"env": {"wrappers": ["payload:Boom"]}})
    _ = Run(stranger, trust=True).config
    assert is_signed(stranger)
    assert Run(stranger).config.env.wrappers == ("payload:Boom",)


def test_modules_beside_a_run_are_not_imported_before_they_are_named(run_path, tmp_path):
    """Libraries look for optional modules, which a stranger could put beside a run."""
    (run_path / "opt_einsum.py").write_text("from pathlib import Path; Path('executed').touch()")
    root = Path(__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, root / "cli.py", "info", "."], cwd=run_path, env=environment, check=False
    )
    assert done.returncode == 0
    assert not (run_path / "executed").exists()
