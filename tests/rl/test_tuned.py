"""Tuned hyperparameters: found by environment and algorithm, scaled, and below what is given."""

import pytest

from worldmodel.agent_config import AgentConfig
from worldmodel.errors import ConfigError
from worldmodel.rl.agents import make_agent
from worldmodel.rl.envs import AgentEnvs
from worldmodel.rl.tuned import TUNED, parse_hyper, resolve_agent, with_schedules
from worldmodel.run import Run


def tuned(env_id, **settings):
    return resolve_agent(AgentConfig(**settings), env_id)


@pytest.mark.parametrize("env_id", [None, "DoublePendulumPixels-v0"])
def test_an_environment_without_tuned_settings_gets_the_general_ones(env_id):
    found = tuned(env_id, on="state", kwargs={"ent_coef": 0.1})
    assert (found.gamma, found.num_envs) == (0.98, 32)
    assert found.kwargs["n_steps"] * found.num_envs == 8 * found.kwargs["batch_size"] == 2048
    assert (found.kwargs["learning_rate"], found.kwargs["ent_coef"]) == ("lin_1e-3_1e-4", 0.1)
    assert tuned(env_id, on="dream").num_envs == 128
    assert tuned(env_id, on="state", algo="sac").kwargs["gradient_steps"] == -1


def test_an_agent_is_made_with_tuned_settings_and_otherwise_sb3_defaults(driven_run):
    """The zoo leaves PPO's batch size and Acrobot's learning rate to Stable-Baselines3."""
    envs = AgentEnvs(Run(driven_run, "cpu"), "state")
    for env_id, batch_size, rate in (("Acrobot-v1", 64, 3e-4), (None, 256, 1e-3)):
        config = tuned(env_id, on="state")
        training = envs.training(config)
        agent = make_agent(config, training)
        assert (agent.batch_size, agent.lr_schedule(1.0)) == (batch_size, pytest.approx(rate))
        assert agent.n_steps * training.num_envs == (4096 if env_id else 2048)
        training.close()


@pytest.mark.parametrize("env_id", ["Pendulum-v1", "some_module:Pendulum-v1"])
def test_tuned_settings_are_found_by_environment_and_algorithm(env_id):
    ppo = tuned(env_id, on="state")
    assert (ppo.gamma, ppo.num_envs) == (0.9, 4)
    assert ppo.kwargs["n_steps"] == 1024
    assert ppo.kwargs["use_sde"] is True
    sac = tuned(env_id, on="state", algo="sac")
    assert (sac.gamma, sac.kwargs) == (0.99, {"learning_rate": 1e-3})


def test_what_is_given_is_kept():
    given = {"gamma": 0.5, "num_envs": 8, "kwargs": {"n_steps": 7, "ent_coef": 0.3}}
    found = tuned("Pendulum-v1", on="state", **given)
    assert (found.gamma, found.num_envs) == (0.5, 8)
    assert (found.kwargs["n_steps"], found.kwargs["ent_coef"]) == (7, 0.3)
    assert found.kwargs["use_sde"] is True
    assert resolve_agent(found, "Pendulum-v1") == found


@pytest.mark.parametrize(
    ("env_id", "settings", "rollout"),
    [
        ("Pendulum-v1", {"on": "state"}, 4096),
        ("Pendulum-v1", {"on": "state", "num_envs": 16}, 4096),
        ("Pendulum-v1", {"on": "dream"}, 4096),
        ("CartPole-v1", {"on": "latent"}, 256),
        ("CartPole-v1", {"on": "dream"}, 2048),
    ],
)
def test_the_rollout_does_not_depend_on_the_number_of_environments(env_id, settings, rollout):
    found = tuned(env_id, **settings)
    assert found.kwargs["n_steps"] * found.num_envs == rollout


@pytest.mark.parametrize("num_envs", [1, 4, 16, 128])
def test_off_policy_algorithms_keep_their_gradient_steps_per_step(num_envs):
    for (algo, env_id), settings in TUNED.items():
        if "train_freq" in settings:
            found = tuned(env_id, on="state", algo=algo, num_envs=num_envs)
            steps = found.kwargs["train_freq"] * num_envs
            ratio = settings["gradient_steps"] / settings["train_freq"]
            assert found.kwargs["gradient_steps"] / steps == pytest.approx(ratio, rel=0.05)


def test_every_setting_is_an_argument_of_its_algorithm():
    from worldmodel.rl.agents import check_consistent

    for algo, env_id in TUNED:
        check_consistent(tuned(env_id, on="state", algo=algo))


def test_a_linear_schedule_is_written_as_in_the_zoo():
    kwargs = with_schedules({"learning_rate": "lin_1e-3", "n_epochs": 4})
    assert kwargs["n_epochs"] == 4
    assert kwargs["learning_rate"](1.0) == pytest.approx(1e-3)
    assert kwargs["learning_rate"](0.25) == pytest.approx(2.5e-4)
    rate = with_schedules({"learning_rate": "lin_1e-3_1e-4"})["learning_rate"]
    assert (rate(1.0), rate(0.0)) == pytest.approx((1e-3, 1e-4))
    message = "expected lin_A or lin_A_B"
    for wrong in ("lin_fast", "lin_", "lin_1_2_3"):
        with pytest.raises(ValueError, match=f"learning_rate is '{wrong}'; {message}"):
            with_schedules({"learning_rate": wrong})


def test_hyperparameters_are_given_one_by_one_and_in_a_file(tmp_path):
    file = tmp_path / "ppo.yaml"
    file.write_text("n_steps: 64\ngamma: 0.9\npolicy_kwargs: {net_arch: [8]}\n")
    found = parse_hyper([str(file), "n_steps=32", "policy_kwargs.log_std_init=-2"])
    assert found["gamma"] == 0.9
    assert found["kwargs"]["n_steps"] == 32
    assert found["kwargs"]["policy_kwargs"] == {"net_arch": [8], "log_std_init": -2}
    assert parse_hyper(None) == {}
    with pytest.raises(ConfigError, match=r"--hyper is .*nowhere\.yaml'; expected key=value"):
        parse_hyper([str(tmp_path / "nowhere.yaml")])
