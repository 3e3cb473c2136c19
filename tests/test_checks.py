"""`worldmodel info --check` names every damaged file of a run, and `worldmodel repair` works."""

import json
import shutil

import pytest
import torch
from typer.testing import CliRunner

from worldmodel.checks import check_path
from worldmodel.cli import app
from worldmodel.errors import RunError
from worldmodel.run import Run


def invoke(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_an_intact_run_and_an_intact_buffer_pass(run_path):
    assert check_path(run_path) == []
    result = invoke("info", "--check", run_path)
    assert (result.exit_code, result.stdout) == (0, f"{run_path}: no damage found\n")
    (buffer,) = Run(run_path).config.data.dir.glob("[!.]*_32x*")
    assert json.loads(invoke("info", "--check", buffer, "--json").stdout)["problems"] == []


@pytest.mark.parametrize(
    "name",
    [
        *("models/encoder.pth", "models/predictor.pth", "models/decoder.pth"),
        *("models/reward_head.pth", "models/imagination.pt", "models/probe.pt", "checkpoint.pt"),
    ],
)
def test_a_flipped_bit_in_any_tensor_file_is_found(run_path, name):
    if name == "checkpoint.pt":
        torch.save({"weights": torch.zeros(1000)}, run_path / name)
    flip(run_path / name)
    (problem,) = check_path(run_path)
    assert str(run_path / name) in problem.what
    result = invoke("info", "--check", run_path)
    assert result.exit_code == 1
    assert "To repair it: " in result.stdout


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("models/ensemble_3.pt", "PK"),
        ("rl/agent/agent.zip", "PK"),
        ("rl/agent/loop.json", '{"rounds": 1}'),
        ("rl/agent/experience/0/header.json", "{}"),
        ("rl/agent/model_0/config.yaml", "seed: -1"),
        ("config.yaml", "seed: [1"),
        ("config.yaml", "seed: -1"),
        ("models/spec.json", "{}"),
        ("models/spec.json", "\udcff"),
        ("metrics.json", '{"schema_version": 3}'),
        ("metrics.json", "[" * 100_000),
        ("plan.json", "[]"),
        ("plan.json", '{"goal": "upright"}'),
        ("goals.json", '{"value": NaN}'),
        ("goals.json", '{"goals": "heldout"}'),
        ("rl/compare.json", '{"views": {"state": {}}}'),
        ("rl/agent/results.json", '{"real": {"mean": "high"}}'),
        ("rl/compare.json", '{"a": '),
        ("rl/agent/results.json", ""),
    ],
)
def test_damaged_text_is_found(run_path, name, content):
    (run_path / name).parent.mkdir(parents=True, exist_ok=True)
    (run_path / name).write_bytes(content.encode(errors="surrogateescape"))
    problems = check_path(run_path)
    assert any(name in problem.what for problem in problems), problems
    assert all(problem.fix for problem in problems)


def test_weights_that_are_not_finite_or_of_another_model_are_refused(run_path):
    path = run_path / "models" / "predictor.pth"
    state = torch.load(path, weights_only=True)
    torch.save({name: torch.full_like(value, torch.nan) for name, value in state.items()}, path)
    with pytest.raises(RunError, match=r"predictor\.pth is damaged: it holds NaN"):
        _ = Run(run_path).model


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("starts", torch.zeros(5, 7), r"starts is torch.float32 of shape \(5, 7\)"),
        ("starts", torch.zeros(0, 8), r"starts is .* shape \(0, 8\)"),
        ("starts", torch.zeros(5, 8, dtype=torch.int64), "starts is torch.int64"),
        ("mean", torch.full((8,), torch.inf), "mean holds NaN or infinity"),
        ("whitening", torch.zeros(8, 7), "whitening is"),
        ("radius", "far", "is damaged"),
        ("other", torch.zeros(1), "is damaged"),
    ],
)
def test_starts_and_domain_of_another_model_are_refused(run_path, part, value, message):
    path = run_path / "models" / "imagination.pt"
    content = torch.load(path, weights_only=True)
    (content if part == "starts" else content["domain"])[part] = value
    torch.save(content, path)
    with pytest.raises(RunError, match=message):
        _ = Run(run_path).model


def test_a_buffer_is_repaired_on_the_command_line(run_path, tmp_path):
    (buffer,) = Run(run_path).config.data.dir.glob("[!.]*_32x*")
    path = shutil.copytree(buffer, tmp_path / "buffer")
    assert "needs no repair" in invoke("repair", path).stdout
    (path / "index.bin").unlink()
    result = invoke("info", "--check", path)
    assert result.exit_code == 1
    assert f"worldmodel repair {path}" in " ".join(result.stdout.split())
    result = invoke("repair", path)
    assert result.exit_code == 1
    assert "only the first 0 episodes can be kept: --discard" in " ".join(result.stderr.split())
    assert "kept 0 episodes" in invoke("repair", path, "--discard").stdout
    assert invoke("info", "--check", path).exit_code == 0
    assert invoke("repair", tmp_path / "nothing").exit_code == 1
