"""Own data: every source gives the training of the same episodes collected from an environment."""

import json

import gymnasium as gym
import h5py
import minari
import numpy as np
import pytest
import torch
from minari.data_collector import EpisodeBuffer
from own_episodes import KWARGS, SIZE, episodes_of, simple_episodes, train, write_rows
from tiny_env import TinyEnv

import worldmodel
from worldmodel.config import build_config, from_options
from worldmodel.data import ReplayBuffer, collect
from worldmodel.data.datasets import open_datasets
from worldmodel.data.own_data import describe_data
from worldmodel.data.store import infer_action_space, stored_frames


def comparable(run):
    metrics = run.metrics.to_dict()
    weights = {
        path.name: {k: v.tolist() for k, v in torch.load(path, weights_only=True).items()}
        for path in (run.path / "models").glob("*.pth")
    }
    return json.dumps([{k: metrics[k] for k in ("data", "forecast", "heads", "collapse")}, weights])


def test_arrays_buffers_and_hdf5_give_the_run_of_the_same_episodes(collected, tmp_path):
    run, paths = collected
    write_rows(tmp_path / "rows.h5", episodes_of(paths))
    env = {"env": TinyEnv, "policy": "random", "env_kwargs": KWARGS}
    for data in (list(map(str, paths)), list(episodes_of(paths)), tmp_path / "rows.h5"):
        own = train(tmp_path, data=data, **env)
        assert comparable(own) == comparable(run)
        assert own.config.env.id == run.config.env.id


@pytest.mark.filterwarnings("ignore::UserWarning:minari")
def test_a_minari_dataset_gives_its_episodes(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    rng, recorded = np.random.default_rng(0), []
    for steps in (14, 12) * 6:
        recorded.append(
            EpisodeBuffer(
                seed=None,
                observations={"pixels": rng.integers(0, 256, (steps + 1, 20, 20, 3), np.uint8)},
                actions=rng.integers(0, 2, steps),
                rewards=list(np.arange(steps, dtype=float)),
                terminations=[False] * (steps - 1) + [steps == 14],
                truncations=[False] * (steps - 1) + [steps == 12],
                infos={"state": np.arange(3.0 * (steps + 1)).reshape(-1, 3)},
            )
        )
    image = gym.spaces.Box(0, 255, (20, 20, 3), np.uint8)
    minari.create_dataset_from_buffers(
        "cartpole/random-v0",
        recorded,
        env="CartPole-v1",
        observation_space=gym.spaces.Dict({"pixels": image}),
        action_space=gym.spaces.Discrete(2),
    )
    run = train(tmp_path, data="minari:cartpole/random-v0")
    assert run.config.env.id == "CartPole-v1"
    assert run.config.data.policy == "recorded"
    with run.datasets() as data, ReplayBuffer.open(data.train.path) as whole:
        assert (whole.lengths - 1).tolist() == [14, 12] * 6
        assert whole.terminated.tolist() == [True, False] * 6
        assert whole.action_space == gym.spaces.Discrete(2)
        assert whole.frame_shape == (SIZE, SIZE, 3)
        assert whole.states([3], [1], 1).tolist() == [[[3.0, 4.0, 5.0]]]
        read = whole.windows([3], [0], 13)
        assert read.actions[0].tolist() == recorded[3].actions.tolist()
        assert read.rewards[0].tolist() == list(range(12))
    assert run.make_env().reset(seed=0)[0].shape == (SIZE, SIZE, 9)


def test_d4rl_transitions_end_where_the_file_says(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "d4rl.hdf5"
    with h5py.File(path, "w") as file:
        file["observations"] = np.arange(120.0)[:, None].repeat(3, 1)
        file["next_observations"] = np.arange(1.0, 121.0)[:, None].repeat(3, 1)
        file["actions"] = rng.uniform(-1, 1, (120, 2))
        file["rewards"] = np.arange(120.0)
        file["terminals"] = np.arange(120) % 20 == 9
        file["timeouts"] = np.arange(120) % 20 == 19
    run = train(tmp_path, data=path, observation="vector")
    assert run.config.env.id is None
    with run.datasets() as data, ReplayBuffer.open(data.train.path) as whole:
        assert whole.lengths.tolist() == [11] * 12
        assert whole.terminated.tolist() == [True, False] * 6
        second = whole.windows([1], [0], 11)
        assert second.frames[0, :, 0].tolist() == list(range(10, 21))
        assert second.rewards[0].tolist() == list(range(10, 20))
        assert whole.action_space == gym.spaces.Box(-1, 1, (2,))


def write_transitions(path, lengths, actions, *, outcomes):
    """The layout of D4RL: one row per transition; observations count the steps of an episode."""
    steps = np.concatenate([np.arange(length) for length in lengths])
    ends = np.isin(np.arange(len(steps)), np.cumsum(lengths) - 1)
    with h5py.File(path, "w") as file:
        file["observations"] = np.stack([steps, steps], axis=1)
        file["actions"], file["rewards"], file["terminals"] = actions, steps + 0.5, ends
        if outcomes:
            file["next_observations"] = np.stack([steps + 1, steps + 1], axis=1)


def test_d4rl_actions_outside_the_unit_range_have_a_box_of_their_extremes(tmp_path):
    actions = np.random.default_rng(0).uniform(-1, 1, (120, 2))
    actions[17, 0], actions[90, 0], actions[:, 1] = -3.0, 2.5, np.linspace(0.0, 0.5, 120)
    write_transitions(tmp_path / "d4rl.hdf5", [10] * 12, actions, outcomes=True)
    run = train(tmp_path, data=tmp_path / "d4rl.hdf5", observation="vector")
    with run.datasets() as data, ReplayBuffer.open(data.train.path) as whole:
        expected = gym.spaces.Box(np.float32([-3.0, 0.0]), np.float32([2.5, 0.5]))
        assert whole.action_space == expected == run.model.spec.actions.space()
        assert whole.windows([1], [0], 11).actions[0, 7, 0] == -3.0
    sent = run.model.action_vector(np.float32([[-3.0, 0.5], [-0.25, 0.25]]))
    assert sent.tolist() == [[-1.0, 1.0], [0.0, 0.0]]


@pytest.mark.parametrize("outcomes", [True, False])
def test_a_d4rl_episode_of_one_step_has_its_outcome_or_is_left_out(tmp_path, outcomes):
    lengths = [10] * 3 + [1] + [10] * 9
    actions = np.arange(121.0)[:, None] / 121
    write_transitions(tmp_path / "d4rl.hdf5", lengths, actions, outcomes=outcomes)
    run = train(tmp_path, data=tmp_path / "d4rl.hdf5", observation="vector")
    with run.datasets() as data, ReplayBuffer.open(data.train.path) as whole:
        frames = [11, 11, 11, 2, *[11] * 9] if outcomes else [10] * 12
        assert whole.lengths.tolist() == frames
        assert whole.terminated.tolist() == [outcomes] * len(frames)
        assert min(data.train.lengths.min(), data.heldout.lengths.min()) == max(frames)
        if outcomes:
            one = whole.windows([3], [0], 2)
            assert one.frames[0, :, 0].tolist() == [0.0, 1.0]
            assert one.rewards[0].tolist() == [0.5]
        after = whole.windows([4 if outcomes else 3], [0], 5)
        assert np.allclose(after.actions[0, :, 0], np.arange(31, 35) / 121)


def test_the_entry_of_the_observations_can_be_named(collected, tmp_path):
    write_rows(tmp_path / "rows.h5", episodes_of(collected[1]))
    with h5py.File(tmp_path / "rows.h5", "a") as file:
        file.move("pixels", "camera")
    with pytest.raises(ValueError, match=r"it holds action, camera.*--observation-key"):
        train(tmp_path, data=tmp_path / "rows.h5")
    run = train(tmp_path, data=tmp_path / "rows.h5", observation_key="camera")
    with run.datasets() as data:
        assert data.train.frame_shape == (SIZE, SIZE, 3)


def test_without_an_environment_everything_works_but_what_needs_one(collected, tmp_path):
    run = train(tmp_path, data=list(episodes_of(collected[1])))
    assert run.config.env.id is None
    assert run.path.name.startswith("episodes_")
    assert (run.path / "report.html").exists()
    dreams = run.imagine(num_envs=2)
    dreams.reset(seed=0)
    assert dreams.step(dreams.action_space.sample())[0].shape == (2, 8)
    for act in (run.make_env, run.plan, run.rollout, lambda: run.train_agent(on="latent")):
        with pytest.raises(ValueError, match=r"needs the environment.*--set env.id=ID"):
            act()
    named = run.with_settings({"env": {"id": "tiny_env:TinyEnv", "kwargs": KWARGS}})
    assert named.make_env().reset(seed=0)[0].shape == (SIZE, SIZE, 9)


def test_episodes_are_split_without_overlap_and_the_same_for_every_seed(collected, tmp_path):
    content = [{**e, "seed": None} for e in episodes_of(collected[1])]
    runs = [train(tmp_path, data=content, seed=seed) for seed in (0, 1)]
    parts = []
    for run in runs:
        with run.datasets() as data:
            found = [
                [b.states([i], [0], 1)[0, 0, 1] for i in range(len(b))]
                for b in (data.train, data.validation, data.heldout)
            ]
        assert [len(part) for part in found] == [12, 2, 2]  # data.size limits the first
        assert len({state for part in found for state in part}) == 16
        parts.append(found)
    assert parts[0] == parts[1]
    assert runs[0].metrics.data.heldout_seeds is None


def own_episodes():
    rng = np.random.default_rng(0)
    for _ in range(12):
        yield {
            "frames": rng.integers(0, 256, (300, 20, 20, 3), np.uint8),
            "actions": rng.integers(0, 3, 299),
        }


def test_a_function_gives_long_episodes_which_are_evaluated_in_parts(tmp_path):
    run = train(tmp_path, data=own_episodes)
    assert run.config.data.sources == ("test_own_data:own_episodes",)
    with run.datasets() as data:
        assert data.train.frame_shape == (SIZE, SIZE, 3)
        assert data.heldout.lengths.tolist() == [13] * 8
        assert data.train.action_space == gym.spaces.Discrete(3)
    assert list(run.metrics.forecast.latent.error) == ["0", "5", "10"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("nowhere", "does not exist; expected the directory of a replay buffer"),
        ("minari:no/such-v0", "no local Minari dataset 'no/such-v0'.*minari download"),
        ("missing.h5", "does not exist; expected an HDF5 file"),
        ([], "data is empty"),
        ([{"frames": np.zeros((3, 8, 8, 3)), "actions": np.zeros(2)}], "float64.*expected uint8"),
        ([{"frames": np.zeros((3, 8, 8, 3), np.uint8)}], "expected a dict with frames, actions"),
        (
            [{"frames": np.zeros((4, 16, 16, 3), np.uint8), "actions": np.zeros((3, 1))}] * 3,
            "has 3 episodes of at least 4 frames; expected 10 or more",
        ),
    ],
)
def test_data_that_cannot_be_used_is_refused_with_the_reason(tmp_path, monkeypatch, data, message):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        train(tmp_path, data=data)
    assert not (tmp_path / "results").exists()


def test_data_of_a_buffer_names_no_code_to_import(tmp_path, collected):
    """A buffer of `module:Name` is data: only a registered id becomes the environment."""
    _, paths = collected
    run = train(tmp_path, data=[str(path) for path in paths])
    assert run.config.env.id is None


def test_of_the_policies_that_collected_a_buffer_only_built_in_ones_are_adopted(tmp_path):
    spec = {"episodes": 12, "seeds": range(12), "steps": 12, "policy": "random", "image_size": SIZE}
    collect("Tiny-v0", tmp_path / "data", **spec).close()
    header = tmp_path / "data" / "header.json"
    for name, adopted in (
        ("random", "random"),
        ("evil_module:Policy", "recorded"),
        (3, "recorded"),
    ):
        content = json.loads(header.read_text())
        content["metadata"]["policy"]["name"] = name
        header.write_text(json.dumps(content))
        options = {"data": [str(tmp_path / "data")], "image_size": SIZE}
        assert build_config(from_options(**options)).data.policy == adopted


def test_a_message_says_why_data_has_no_environment(tmp_path):
    spec = {"episodes": 12, "seeds": range(12), "steps": 12, "policy": "random", "image_size": SIZE}
    named = {"a": ("Tiny-v0", {}), "b": ("Tiny-v0", {"size": 24}), "c": ("tiny_env:TinyEnv", {})}
    for name, (env_id, kwargs) in named.items():
        collect(env_id, tmp_path / name, env_kwargs=kwargs, **spec).close()

    def messages(*names):
        sources = [str(tmp_path / name) for name in names]
        config = build_config(from_options(data=sources, data_dir=str(tmp_path), image_size=SIZE))
        with open_datasets(config) as datasets:
            return list(describe_data(config, datasets))

    assert messages("a") == []
    (text,) = messages("a", "b")
    assert text.startswith("The data comes from Tiny-v0, but the sources differ in the environment")
    assert "--env ID" in text
    (text,) = messages("c")
    assert "tiny_env:TinyEnv is not registered here: train with --env module:ID" in text


def test_frames_are_brought_into_the_stored_layout():
    images = np.arange(2 * 8 * 8 * 3, dtype=np.uint8).reshape(2, 8, 8, 3)
    assert (stored_frames(np.moveaxis(images, -1, 1), None) == images).all()
    assert stored_frames(images[..., 0], None).shape == (2, 8, 8, 1)
    assert stored_frames(images, 16).shape == (2, 16, 16, 3)
    assert stored_frames(np.zeros((2, 5)), None).dtype == np.float32


@pytest.mark.parametrize("kind", ["int64", "bool"])
def test_discrete_actions_may_be_columns(tmp_path, kind):
    actions = np.array([[1], [0], [1]], kind)
    episode = {"frames": np.zeros((4, 8, 8, 3), np.uint8), "actions": actions}
    space = gym.spaces.Discrete(2)
    with ReplayBuffer.from_episodes(tmp_path / "buffer", [episode], action_space=space) as buffer:
        assert buffer.windows([0], [0], 4).actions[0].tolist() == [1, 0, 1]


def test_no_episodes_are_refused(tmp_path):
    with pytest.raises(ValueError, match="there are no episodes to store"):
        ReplayBuffer.from_episodes(tmp_path / "buffer", [])


def test_action_spaces_are_the_smallest_usual_ones():
    box = gym.spaces.Box
    discrete = infer_action_space([("0", np.array([0, 2])), ("1", np.array([1]))])
    assert discrete == gym.spaces.Discrete(3)
    assert infer_action_space([("0", np.array([[0.5], [-0.2]]))]) == box(-1, 1, (1,))
    wide = infer_action_space([("0", np.array([[-2.0, 1.0], [3.0, 1.0]]))])
    assert wide == box(np.float32([-2, 0.5]), np.float32([3, 1.5]))


def test_a_view_reads_what_the_buffer_holds(collected):
    with ReplayBuffer.open(collected[1][0]) as buffer:
        view = buffer.select([5, 2], [3, 0], [6, 13])
        assert view.lengths.tolist() == [6, 13]
        assert view.terminated.tolist() == [False, True]
        part, whole = view.windows([0], [1], 4), buffer.windows([5], [4], 4)
        assert all((a == b).all() for a, b in zip(part, whole))
        assert (view.states([1], [0], 13) == buffer.states([2], [0], 13)).all()
        with pytest.raises(ValueError, match="read-only"):
            view.add_episode(*(None,) * 4)
        with pytest.raises(ValueError, match="not within it"):
            buffer.select([0], [0], [14])


class RecordingCallback(worldmodel.Callback):
    """Keeps messages and the total of each task."""

    def __init__(self):
        self.messages, self.totals = [], {}

    def on_message(self, text, *, warning=False):
        self.messages.append(text)

    def on_task_start(self, task, total, done):
        self.totals[task] = total


def test_what_was_inferred_or_is_missing_is_said(tmp_path):
    callback = RecordingCallback()
    run = train(tmp_path, data=simple_episodes(), callbacks=[callback])
    text = " ".join(callback.messages)
    assert "inferred from the data: Discrete(2)" in text
    assert "holds no rewards: 0 is used" in text
    assert "data.size is 12, but the data has 10 training episodes" in text
    assert run.metrics.actions is None
    assert run.metrics.reasons["actions"] == "shuffled actions need at least two held-out episodes"
    assert "heldout" in {warning.name for warning in run.metrics.warnings}


def from_function():
    yield from simple_episodes()


def test_the_total_is_shown_where_the_sources_know_it(collected, tmp_path):
    write_rows(tmp_path / "rows.h5", episodes_of(collected[1]))
    callback = RecordingCallback()
    train(tmp_path, data=[str(collected[1][0]), tmp_path / "rows.h5"], callbacks=[callback])
    assert callback.totals["importing episodes"] == 12 + 28
    callback = RecordingCallback()
    train(tmp_path, data=from_function, callbacks=[callback])
    assert callback.totals["importing episodes"] is None
