"""Saved Stable-Baselines3 agents collect data, and episodes do not depend on the batch."""

import zipfile

import gymnasium as gym
import numpy as np
import pytest
import stable_baselines3 as sb3
import tiny_env  # noqa: F401
import torch
from numpy.testing import assert_array_equal

from worldmodel.data import Agent, collect, load_or_collect
from worldmodel.data.policies import seeded_agent
from worldmodel.errors import ReplayBufferError

VECTOR = {"observation": "vector", "length": (3, 9)}


def save(path, algorithm, policy="MlpPolicy", **env_kwargs):
    env = gym.make("Tiny-v0", **env_kwargs)
    torch.manual_seed(0)
    settings = {"buffer_size": 10} if algorithm in ("DDPG", "DQN", "SAC", "TD3") else {}
    if algorithm == "PPO":
        settings = {"n_steps": 8, "batch_size": 8}
    getattr(sb3, algorithm)(policy, env, device="cpu", **settings).save(path)
    return path


@pytest.fixture(scope="module")
def ppo(tmp_path_factory):
    return save(tmp_path_factory.mktemp("agents") / "ppo.zip", "PPO", **VECTOR)


def gather(path, policy, env_kwargs=VECTOR, seeds=(1, 2, 3, 4), **settings):
    settings = {"episodes": len(seeds), "steps": 6, "image_size": 8} | settings
    return collect("Tiny-v0", path, seeds=seeds, policy=policy, env_kwargs=env_kwargs, **settings)


def test_an_agent_acts_on_its_own_observation_while_images_are_stored(tmp_path, ppo):
    buffer = gather(tmp_path, ppo, observation="render")
    assert buffer.frame_shape == (8, 8, 3)
    model = sb3.PPO.load(ppo, device="cpu")
    env = gym.make("Tiny-v0", **VECTOR)
    for i, seed in enumerate(buffer.seeds.tolist()):
        length = int(buffer.lengths[i])
        observation, _ = env.reset(seed=seed)
        for action in buffer.windows([i], [0], length).actions[0]:
            expected, _ = model.predict(observation, deterministic=True)
            assert_array_equal(action, expected)
            observation = env.step(expected)[0]


@pytest.mark.parametrize("deterministic", [True, False])
def test_episodes_of_agents_do_not_depend_on_the_number_of_environments(
    tmp_path, ppo, deterministic
):
    policy = Agent(ppo, deterministic=deterministic)
    contents = set()
    for num_envs in (1, 3):
        torch.manual_seed(num_envs)
        path = tmp_path / str(num_envs)
        gather(path, policy, num_envs=num_envs)
        contents.add((path / "actions.bin").read_bytes())
    assert len(contents) == 1


def test_drawn_actions_vary_by_seed_and_leave_torchs_global_generator_alone(tmp_path, ppo):
    torch.manual_seed(7)
    before = torch.get_rng_state()
    buffer = gather(tmp_path, Agent(ppo, deterministic=False))
    assert torch.equal(torch.get_rng_state(), before)
    first = buffer.windows(range(4), [0] * 4, 2).actions
    assert len({action.tobytes() for action in first}) == 4


def test_an_agent_that_observes_images_gets_its_frame_stack(tmp_path):
    image = {"size": 36, "frame_stack": 2}
    path = save(tmp_path / "cnn.zip", "PPO", "CnnPolicy", **image)
    buffer = gather(tmp_path / "data", path, image, image_size=36)
    assert buffer.frame_shape == (36, 36, 3)
    assert buffer.metadata["env_kwargs"]["frame_stack"] == 2
    with pytest.raises(ValueError, match="trained with observations"):
        gather(tmp_path / "other", path, {"size": 36}, image_size=36)


@pytest.mark.parametrize(
    ("algorithm", "found", "actions"),
    [
        ("A2C", "A2C", "box"),
        ("DDPG", "TD3", "box"),  # DDPG is TD3 with one critic, and saves itself as such
        ("DQN", "DQN", "discrete"),
        ("SAC", "SAC", "box"),
        ("TD3", "TD3", "box"),
    ],
)
def test_the_algorithm_is_read_from_the_file(tmp_path, algorithm, found, actions):
    kwargs = VECTOR | {"actions": actions}
    path = save(tmp_path / "agent.zip", algorithm, **kwargs)
    assert Agent(path).identity()["algo"] == found
    assert gather(tmp_path / "data", path, kwargs, seeds=[1]).num_episodes == 1


def test_exploration_of_dqn_depends_on_the_seed_alone(tmp_path):
    path = save(tmp_path / "dqn.zip", "DQN", **VECTOR, actions="discrete")
    model = sb3.DQN.load(path, device="cpu")
    observation = gym.make("Tiny-v0", **VECTOR).reset(seed=0)[0]

    def actions(rate, seed, noise):
        model.exploration_rate = rate
        np.random.seed(noise)  # noqa: NPY002 (what the algorithm draws from)
        act = seeded_agent(model, seed, deterministic=False)
        return [int(act(observation)) for _ in range(60)]

    assert actions(1.0, 3, noise=0) == actions(1.0, 3, noise=1)
    assert actions(1.0, 3, noise=0) != actions(1.0, 4, noise=0)
    assert set(actions(1.0, 3, noise=0)) == {0, 1, 2}
    assert len(set(actions(0.0, 3, noise=0))) == 1


def test_a_given_algorithm_overrides_the_file(ppo):
    assert Agent(ppo, algo="A2C").identity()["algo"] == "A2C"
    with pytest.raises(ValueError, match="algo is 'REINFORCE'; expected one of A2C"):
        Agent(ppo, algo="REINFORCE")


def test_an_agent_without_an_action_distribution_must_be_deterministic(tmp_path):
    path = save(tmp_path / "td3.zip", "TD3", **VECTOR)
    with pytest.raises(ValueError, match="a TD3 agent has no action distribution"):
        Agent(path, deterministic=False)


def test_files_that_are_not_agents_are_refused(tmp_path):
    text = tmp_path / "agent.zip"
    text.write_text("not a zip")
    with pytest.raises(ValueError, match="is not an agent of Stable-Baselines3"):
        gather(tmp_path / "data", text)
    with zipfile.ZipFile(text, "w") as archive:
        archive.writestr("data", "{}")
    with pytest.raises(ValueError, match="does not name the algorithm that saved it"):
        gather(tmp_path / "data", text)
    assert not (tmp_path / "data").exists()


def test_an_agent_for_other_actions_is_refused(tmp_path, ppo):
    with pytest.raises(ValueError, match="trained with actions float32 of shape"):
        gather(tmp_path, ppo, VECTOR | {"actions": "discrete"})


def test_actions_that_do_not_start_at_zero_are_refused(tmp_path):
    kwargs = VECTOR | {"actions": "from_one"}
    path = save(tmp_path / "dqn.zip", "DQN", **kwargs)
    with pytest.raises(ValueError, match=r"start at 0, but .* Discrete\(3, start=1\)"):
        gather(tmp_path / "data", path, kwargs)


def test_data_of_another_agent_is_not_reused(tmp_path, ppo):
    settings = {"episodes": 2, "seeds": [1, 2], "steps": 6, "env_kwargs": VECTOR}
    path = tmp_path / "data"
    load_or_collect("Tiny-v0", path, policy=ppo, **settings)
    moved = tmp_path / "moved.zip"
    moved.write_bytes(ppo.read_bytes())
    assert len(load_or_collect("Tiny-v0", path, policy=str(moved), **settings)) == 2
    with pytest.raises(ReplayBufferError, match=r"policy\.deterministic is True, wanted False"):
        load_or_collect("Tiny-v0", path, policy=Agent(ppo, deterministic=False), **settings)
    trained = save(tmp_path / "other.zip", "A2C", **VECTOR)
    with pytest.raises(ReplayBufferError, match=r"policy\.sha256"):
        load_or_collect("Tiny-v0", path, policy=trained, **settings)


def test_actions_have_the_dtype_of_the_environment(tmp_path, ppo):
    assert gather(tmp_path, ppo).windows([0], [0], 2).actions.dtype == np.float32
