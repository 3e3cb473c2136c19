"""Sharded buffers read like others, and Ray collects the bytes of one process."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from episodes import create, fill
from killing_policy import MARK
from typer.testing import CliRunner

from worldmodel import plugins
from worldmodel.checks import check_path, describe
from worldmodel.cli import app
from worldmodel.config import build_config
from worldmodel.data import ReplayBuffer, collect
from worldmodel.data import shards as shards_module
from worldmodel.data.own_data import OwnData, as_sources
from worldmodel.data.ray_collect import cluster as ray_cluster
from worldmodel.data.ray_collect import collect_on_ray
from worldmodel.data.shards import Manifest, shard_directory
from worldmodel.errors import ReplayBufferError, RunError

SIZES = [3, 1, 4]


@pytest.fixture
def whole(tmp_path):
    with fill(create(tmp_path / "whole"), range(sum(SIZES))):
        pass
    with ReplayBuffer.open(tmp_path / "whole") as buffer:
        yield buffer


@pytest.fixture
def shards(tmp_path):
    path, first = tmp_path / "shards", 0
    Manifest(SIZES).write(path)
    for i, size in enumerate(SIZES):
        with fill(create(shard_directory(path, i)), range(first, first + size)):
            first += size
    return path


def same(left, right):
    return all((a == b).all() and a.dtype == b.dtype for a, b in zip(left, right, strict=True))


def require_same(buffer, whole):
    assert len(buffer) == len(whole)
    for name in ("seeds", "lengths", "terminated"):
        assert (getattr(buffer, name) == getattr(whole, name)).all()
    for length in (1, 2, 4):
        drawn = [each.sample(64, length, np.random.default_rng(0)) for each in (buffer, whole)]
        assert same(*drawn)
    for i, length in enumerate(whole.lengths.tolist()):
        assert same(*(each.windows([i], [0], length) for each in (buffer, whole)))
        assert same(*(each.actions([i], [0], length) for each in (buffer, whole)))


def test_shards_read_like_one_buffer(shards, whole):
    with ReplayBuffer.open(shards) as buffer:
        require_same(buffer, whole)
        if whole.state_dim:
            assert (buffer.states([5], [0], 3) == whole.states([5], [0], 3)).all()
        chosen = [6, 0, 3]
        view, expected = buffer.select(chosen), whole.select(chosen)
        assert same(*(each.sample(32, 2, np.random.default_rng(1)) for each in (view, expected)))
    with ReplayBuffer.open([shard_directory(shards, i) for i in range(3)]) as buffer:
        require_same(buffer, whole)
        assert as_sources(buffer, shards) == [str(shard_directory(shards, i)) for i in range(3)]
    with ReplayBuffer.open([shard_directory(shards, 1), shard_directory(shards, 2)]) as buffer:
        assert buffer.seeds.tolist() == list(range(3, 8))
    with ReplayBuffer.open([shards, shards]) as buffer:
        assert buffer.num_frames == 2 * whole.num_frames
    assert describe(shards)["episodes"] == len(whole)
    assert check_path(shards) == []


def test_few_shards_are_mapped_at_a_time(shards, whole, monkeypatch):
    monkeypatch.setattr(shards_module, "_MOST_MAPPED", 1)
    with ReplayBuffer.open(shards) as buffer:
        require_same(buffer, whole)
        mapped = [file._mapped.size > 0 for log in buffer._log._logs for file in log.files.values()]
        assert 0 < sum(mapped) <= 4


def test_damage_in_a_shard_is_found(shards):
    content = bytearray((shard_directory(shards, 2) / "frames.bin").read_bytes())
    content[-1] ^= 1
    (shard_directory(shards, 2) / "frames.bin").write_bytes(content)
    (problem,) = check_path(shards)
    assert "shard-00002: episode 3" in problem.what


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: shard_directory(p, 1).rename(p / "gone"), "lacks 1 of its 3 shards, the first"),
        (lambda p: Manifest([3, 2, 4]).write(p), "shard-00001 has 1 of 2 episodes"),
        (lambda p: (p / "shards.json").write_text('{"episodes": [3, "x"]}'), r"episodes\.1 is 'x'"),
        (
            lambda p: (
                shard_directory(p, 1).rename(p / "away"),
                shard_directory(p, 1).symlink_to(p / "away"),
            ),
            "shard-00001 is a link",
        ),
    ],
)
def test_incomplete_shards_are_not_opened(shards, change, message):
    change(shards)
    with pytest.raises(ReplayBufferError, match=message):
        ReplayBuffer.open(shards)
    assert check_path(shards)


def test_shards_are_read_only_and_of_one_kind(shards, tmp_path):
    with pytest.raises(ReplayBufferError, match=r"is sharded, .* read-only; collect into"):
        ReplayBuffer.open(shards, append=True)
    with (
        ReplayBuffer.open(shards) as buffer,
        pytest.raises(ReplayBufferError, match="is sharded, and sharded buffers are read-only"),
    ):
        buffer.add_episode(
            np.zeros((3, *buffer.frame_shape), buffer.frame_dtype),
            np.zeros((2, *buffer.action_space.shape), np.float32),
            np.zeros(2),
            False,
            states=np.zeros((3, buffer.state_dim)),
        )
    collect(
        "CartPole-v1", tmp_path / "other", episodes=1, seeds=[0], steps=3, policy="random"
    ).close()
    with pytest.raises(ReplayBufferError, match=r"differs from .* so they are not one buffer"):
        ReplayBuffer.open([shard_directory(shards, 0), tmp_path / "other"])
    with pytest.raises(ReplayBufferError, match="there are no buffers"):
        ReplayBuffer.open([])


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A local cluster of two workers, which see the modules of the tests."""
    ray = pytest.importorskip("ray")
    mark = tmp_path_factory.mktemp("ray") / "killed"
    variables = {"PYTHONPATH": str(Path(__file__).parent), MARK: str(mark)}
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="error",
        runtime_env={"env_vars": variables},
    )
    yield mark
    ray.shutdown()


SETTINGS = {"steps": 5, "episodes": 20, "seeds": range(20), "policy": "killing_policy:KilledOnce"}


def test_ray_collects_the_bytes_of_one_process_although_a_worker_is_killed(
    cluster, tmp_path, monkeypatch
):
    done = []
    with collect_on_ray(
        "CartPole-v1", tmp_path / "ray", shard_episodes=6, progress=done.append, **SETTINGS
    ) as buffer:
        assert cluster.exists()
        monkeypatch.setenv(MARK, str(cluster))
        with collect("CartPole-v1", tmp_path / "one", **SETTINGS) as whole:
            require_same(buffer, whole)
            assert buffer.metadata == whole.metadata
    assert sorted(done) == done
    assert done[-1] == 20
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "ray").rglob("*.bin")}
    collect_on_ray("CartPole-v1", tmp_path / "ray", shard_episodes=6, **SETTINGS).close()
    assert files == {path: path.stat().st_mtime_ns for path in (tmp_path / "ray").rglob("*.bin")}
    for change, message in (
        ({"shard_episodes": 10}, "it was started with 20 episodes in 4 shards from seed 0"),
        ({"seeds": range(1, 21)}, "it was started with 20 episodes in 4 shards from seed 0"),
        ({"policy": "random"}, "policy"),
        ({"steps": 4}, "steps is 5, wanted 4"),
    ):
        with pytest.raises(ReplayBufferError, match=message):
            collect_on_ray(
                "CartPole-v1", tmp_path / "ray", **{"shard_episodes": 6} | SETTINGS | change
            )
    assert files == {path: path.stat().st_mtime_ns for path in (tmp_path / "ray").rglob("*.bin")}


@pytest.mark.parametrize(
    ("address", "message"), [("", "Ray does not start"), ("10.0.0.1:6379", "cannot be reached")]
)
def test_a_cluster_that_does_not_answer_is_an_error(monkeypatch, address, message):
    def fail(**_):
        raise Exception("The current node timed out during startup.\nThis could happen because")

    ray = SimpleNamespace(is_initialized=lambda: False, init=fail)
    monkeypatch.setenv("RAY_ADDRESS", address)
    with (
        pytest.raises(RunError, match=rf"{message}.*\(The current .* during startup\.\)"),
        ray_cluster(ray, 2),
    ):
        pass


def test_an_error_in_a_worker_is_the_error_of_the_collection(cluster, tmp_path):
    (tmp_path / "mine.txt").write_text("")
    with pytest.raises(ReplayBufferError, match="is not empty"):
        collect_on_ray("CartPole-v1", tmp_path, **SETTINGS)
    with pytest.raises(ValueError, match="chose the action 9 in the episode with seed"):
        collect_on_ray(
            "CartPole-v1",
            tmp_path / "bad",
            **SETTINGS | {"policy": "killing_policy:Invalid"},
        )
    assert not (tmp_path / "bad").exists()


def test_the_default_policy_is_that_of_the_process_that_collects(cluster, tmp_path, monkeypatch):
    class Driven(plugins.EnvPlugin):
        config_defaults = {"data": {"policy": "random"}}  # noqa: RUF012

    env_id = "DoublePendulumPixels-v0"
    plugins.plugin_class(env_id)
    monkeypatch.setitem(plugins._plugins, env_id, Driven)
    settings = {"episodes": 2, "seeds": range(2), "steps": 3, "image_size": 16}
    with collect_on_ray(env_id, tmp_path / "data", **settings) as buffer:
        assert buffer.windows([0, 1], [0, 0], 4).actions.any()


def test_the_command_collects_shards_that_training_takes_as_they_are(cluster, tmp_path):
    words = ["collect", str(tmp_path / "data"), "--env", "CartPole-v1"]
    words += ["--size", "4", "--steps", "5", "--ray", "--json"]
    for _ in range(2):  # the second call finds it complete
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["episodes"] == 4
    assert json.loads(result.stdout)["metadata"]["policy"]["name"] == "random"
    config = build_config({"data": {"sources": [str(tmp_path / "data")]}}, preset="smoke")
    assert OwnData.of(config).in_place() == tmp_path / "data"
