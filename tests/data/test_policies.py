"""What policies do, as a function of an episode's seed alone."""

import zipfile
from dataclasses import dataclass
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

from worldmodel.data import Agent, Mixed, Passive, Policy, Random, resolve_policy
from worldmodel.registry import POLICIES, reference

BOX = gym.spaces.Box(np.array([-1, 2], np.float32), np.array([1, 5], np.float32))
AROUND_ZERO = gym.spaces.Box(-1, 1, (2,))
DISCRETE = gym.spaces.Discrete(3, start=-1)


def actions(policy, space, seed, steps=200):
    act = policy.bind(space, None, steps)(seed)
    return np.stack([act(t, None) for t in range(steps)])


def runs(sequence):
    """Lengths of the runs of equal actions."""
    rows = sequence.reshape(len(sequence), -1)
    changes = np.flatnonzero((rows[1:] != rows[:-1]).any(axis=1)) + 1
    return np.diff(np.concatenate([[0], changes, [len(rows)]]))


@pytest.mark.parametrize("space", [BOX, DISCRETE])
def test_random_actions_cover_the_space_and_stay_in_it(space):
    drawn = np.concatenate([actions(Random(), space, seed) for seed in range(40)])
    assert all(space.contains(action) for action in drawn)
    if space is BOX:
        assert drawn.dtype == np.float32
        np.testing.assert_allclose(drawn.mean(axis=0), [0, 3.5], atol=0.15)
        np.testing.assert_allclose(drawn.std(axis=0), [2 / 12**0.5, 3 / 12**0.5], rtol=0.08)
    else:
        shares = np.unique(drawn, return_counts=True)[1] / len(drawn)
        np.testing.assert_allclose(shares, 1 / 3, atol=0.05)


def test_random_actions_are_held_for_one_to_eight_steps_all_equally_often():
    held = np.concatenate([runs(actions(Random(), BOX, seed))[:-1] for seed in range(60)])
    lengths, counts = np.unique(held, return_counts=True)
    assert lengths.tolist() == list(range(1, 9))
    assert counts.min() > 0.8 * counts.mean()
    assert counts.max() < 1.2 * counts.mean()


@pytest.mark.parametrize(("hold", "expected"), [((1, 1), {1}), ((3, 3), {3})])
def test_a_fixed_hold_is_respected(hold, expected):
    assert set(runs(actions(Random(hold), BOX, 0, steps=60)).tolist()) == expected


@pytest.mark.parametrize("steps", [1, 2, 7, 8, 9])
def test_short_episodes_have_all_their_actions(steps):
    assert actions(Random((3, 8)), BOX, 1, steps).shape == (steps, 2)


@pytest.mark.parametrize("policy", [Random(), Random((2, 5)), Mixed()])
def test_a_longer_episode_begins_with_a_shorter_one(policy):
    for seed in range(5):
        long = actions(policy, AROUND_ZERO, seed, 90)
        for steps in (1, 10, 41):
            assert np.array_equal(actions(policy, AROUND_ZERO, seed, steps), long[:steps])


@pytest.mark.parametrize("policy", [Random(), Mixed(), Passive()])
def test_actions_depend_on_the_seed_alone(policy):
    start = policy.bind(AROUND_ZERO, None, 50)
    forward = [start(seed)(20, None) for seed in range(10)]
    backward = [start(seed)(20, None) for seed in reversed(range(10))]
    np.testing.assert_array_equal(forward, backward[::-1])
    if policy != Passive():
        assert len({action.tobytes() for action in forward}) > 1


def test_actions_do_not_repeat_the_random_numbers_of_the_environment():
    env_draw = np.random.default_rng(5).uniform(-1, 1, 2)
    assert not np.allclose(actions(Random(), AROUND_ZERO, 5)[0], env_draw)


def test_passive_is_zero_in_the_spaces_dtype():
    double = gym.spaces.Box(-1, 1, (2,), np.float64)
    for space in (AROUND_ZERO, double):
        zeros = actions(Passive(), space, 3, 5)
        assert zeros.dtype == space.dtype
        assert not zeros.any()


def test_passive_needs_zero_in_the_action_space():
    with pytest.raises(ValueError, match="zero action, which is not in Discrete"):
        Passive().bind(DISCRETE, None, 5)
    with pytest.raises(ValueError, match="zero action, which is not in Box"):
        Passive().bind(BOX, None, 5)


def test_random_needs_bounds():
    for space in (gym.spaces.Box(-np.inf, 1, (2,)), gym.spaces.MultiBinary(2)):
        with pytest.raises(ValueError, match="draws within the bounds"):
            Random().bind(space, None, 5)


@pytest.mark.parametrize("fraction", [0.0, 0.25, 1.0])
def test_mixed_episodes_are_entirely_passive_or_random(fraction):
    count = 400
    drawn = [actions(Mixed(fraction), AROUND_ZERO, seed, 20) for seed in range(count)]
    share = np.mean([sequence.any() for sequence in drawn])
    assert abs(share - fraction) < 0.08
    held = [sequence for sequence in drawn if sequence.any()]
    assert all((sequence != 0).all() for sequence in held)


@pytest.mark.parametrize("hold", [(0, 3), (4, 3), (-1, 1)])
def test_an_invalid_hold_is_refused(hold):
    with pytest.raises(ValueError, match="fewest, most"):
        Random(hold)


def test_an_invalid_fraction_is_refused():
    with pytest.raises(ValueError, match=r"random_fraction is 1\.5"):
        Mixed(1.5)


def test_short_names_and_objects_are_policies():
    found = [resolve_policy(name) for name in ("passive", "random", "mixed")]
    assert found == [Passive(), Random(), Mixed()]
    assert resolve_policy(found[1]) is found[1]


def test_built_in_identities_never_change_because_cached_data_is_found_by_them():
    assert Passive().identity() == {"name": "passive"}
    random = {"name": "random", "hold": [1, 8], "streams": 2}
    assert Random().identity() == random
    assert Mixed().identity() == {"name": "mixed", "random_fraction": 0.5, "random": random}


def test_built_in_actions_never_change_because_cached_data_is_completed_with_them():
    drawn = actions(Random(), AROUND_ZERO, 7, 4)
    np.testing.assert_allclose(drawn[:, 0], [-0.794443, -0.794443, -0.794443, -0.109986], atol=1e-6)
    passive = [not actions(Mixed(), AROUND_ZERO, seed, 5).any() for seed in range(8)]
    assert passive == [True, True, False, False, False, True, False, True]


class Constant(Policy):
    """A user's policy: only `bind`."""

    def bind(self, action_space, observation_space, steps):
        return lambda seed: lambda t, observation: np.full(action_space.shape, seed % 2, np.float32)


@dataclass(frozen=True)
class Scaled(Policy):
    scale: float = 0.5

    def bind(self, action_space, observation_space, steps):
        return lambda seed: lambda t, observation: np.full(action_space.shape, self.scale)


class Undescribed(Policy):
    def __init__(self, scale=0.5):
        self.scale = scale

    bind = Constant.bind


class WithoutBind(Policy):
    pass


class NeedsArgument(Scaled):
    def __init__(self, scale):
        super().__init__(scale)


def test_a_policy_of_the_user_is_found_by_module_and_name():
    policy = resolve_policy("test_policies:Constant")
    assert type(policy).__name__ == "Constant"
    assert actions(policy, AROUND_ZERO, 3, 2).tolist() == [[1, 1], [1, 1]]
    assert policy.uses_observations
    assert policy.frame_input is None


def test_the_identity_of_a_users_policy_names_its_class_source_and_fields():
    identity = Constant().identity()
    assert identity["name"].endswith(":Constant")
    assert len(identity["source"]) == 64
    assert Scaled().identity() != Scaled(0.25).identity()
    assert Scaled().identity()["scale"] == 0.5
    with pytest.raises(ValueError, match="make it a dataclass or override `identity`"):
        Undescribed().identity()


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ("expert", "policy is 'expert'; expected 'passive', 'random', 'mixed', module:Name"),
        ("agent", "cannot be made from its name"),
        ("test_policies:NeedsArgument", "cannot be made from its name .*scale"),
        ("test_policies:WithoutBind", "cannot be made from its name .*abstract.* bind"),
        ("test_policies:actions", "cannot be made from its name"),
        ("test_policies:Missing", "cannot load the policy 'test_policies:Missing'"),
        ("collections:OrderedDict", "expected a subclass of Policy"),
        (Constant, "expected a name, a path or a Policy object"),
    ],
)
def test_what_is_not_a_policy_is_refused(policy, message):
    with pytest.raises(ValueError, match=message):
        resolve_policy(policy)


def test_a_file_is_an_agent_and_a_run_directory_is_its_planner(tmp_path, monkeypatch):
    archive = tmp_path / "agent.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("data", "{}")
    assert resolve_policy(str(archive)) == Agent(archive)

    @dataclass(frozen=True)
    class Planner(Scaled):
        run: Path = Path()

        def __init__(self, run):
            object.__setattr__(self, "run", run)

    monkeypatch.setattr(POLICIES, "_references", {"planner": reference(Planner)})
    (tmp_path / "config.yaml").touch()
    assert resolve_policy(tmp_path).run == tmp_path
