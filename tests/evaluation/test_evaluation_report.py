"""The whole evaluation of a tiny model with known metrics."""

import json
from dataclasses import replace

import numpy as np
import pytest
from free_hands import FreeHands
from numpy.testing import assert_allclose
from reported import printed, run_summary
from tiny_model import DT, TinyModel, simulate, write_buffer

from worldmodel.evaluation import (
    HeldOut,
    Metrics,
    evaluate,
    fit_probes,
)
from worldmodel.evaluation_config import Evaluation
from worldmodel.latents import encode_at
from worldmodel.plugins import EnvPlugin

MODEL = TinyModel(rate=1.2)
PLUGIN = FreeHands()
UNKNOWN = EnvPlugin("Unknown-v0", {"dt": DT})
FAST = Evaluation(resamples=20, probe={"updates": 50})
"""For what does not depend on how well the probes are fitted."""


def buffers(folder, **kwargs):
    train = write_buffer(folder / "train", *simulate(90, 12, 1), 0, **kwargs)
    held = write_buffer(folder / "held", *simulate(40, 45, 2), 20_000, **kwargs)
    driven = write_buffer(folder / "driven", *simulate(40, 45, 3, push=0.5), 20_000, **kwargs)
    return train, HeldOut(held, passive=held, driven=driven)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return buffers(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def metrics(world):
    return evaluate(MODEL, *world, plugin=PLUGIN, reference_updates=30)


def test_an_evaluation_is_reproducible_with_probes_fitted_before_or_within(world, metrics):
    probes = fit_probes(MODEL, world[0], PLUGIN.readout(4), seed=0)
    again = evaluate(MODEL, *world, plugin=PLUGIN, dt=DT, reference_updates=30, probes=probes)
    assert again == metrics


def test_metrics_survive_strict_json(metrics):
    content = json.loads(json.dumps(metrics.to_dict(), allow_nan=False))
    assert content == metrics.to_dict()
    assert content["schema_version"] == 3
    assert Metrics.from_dict(content) == metrics


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 2}, "schema version 2, expected 3"),
        ({"schema_version": None}, "schema version None"),
        ({"dt_seconds": "fast"}, "damaged at dt_seconds"),
        ({"collapse": {}}, "damaged at collapse"),
        ({"privileged": {}}, "damaged at privileged"),
    ],
)
def test_older_and_damaged_metrics_are_rejected_with_a_hint(metrics, change, message):
    with pytest.raises(ValueError, match=f"{message}.*`worldmodel evaluate RUN` rewrites"):
        Metrics.from_dict({**metrics.to_dict(), **change})


def test_metrics_that_do_not_say_whether_the_data_is_own_are_read(metrics):
    content = replace(metrics, run=run_summary("older")).to_dict()
    assert content["run"].pop("own_data") is False
    assert Metrics.from_dict(content).run == run_summary("older")


def test_the_data_used_is_described(metrics):
    assert metrics.to_dict()["data"] == {
        "train_episodes": 90,
        "train_steps": 90 * 11,
        "several_actions": False,
        "train_seeds": [0, 89],
        "heldout_episodes": 40,
        "heldout_seeds": [20_000, 20_039],
        "split": "heldout",
        "several_outcomes": False,
    }
    assert metrics.probes.train_observations == 90 * 11
    assert metrics.probes.heldout_observations == 40 * 44
    assert metrics.reasons == {"returns": "all held-out returns are equal, or the model diverged"}
    assert metrics.run is None


def test_hyperparameters_of_the_configuration_are_used(world):
    settings = Evaluation(
        resamples=5,
        confidence=0.5,
        readout="state",
        probe={"observations": 100, "baseline_observations": 50, "updates": 3},
    )
    metrics = evaluate(MODEL, *world, settings, plugin=PLUGIN)
    assert metrics.statistics.resamples == 5
    assert metrics.statistics.confidence == 0.5
    assert metrics.probes.train_observations == 100
    assert metrics.probes.pixels.train_observations == 50
    assert list(metrics.probes.linear.r2) == [f"state_{i}" for i in range(4)]


def test_a_single_exponent_has_no_standard_error_and_is_left_out(world, monkeypatch):
    plugin = FreeHands()
    monkeypatch.setattr(plugin, "lyapunov_exponents", lambda *_: np.array([0.5]))
    metrics = evaluate(MODEL, *world, Evaluation(resamples=5), plugin=plugin)
    json.dumps(metrics.to_dict(), allow_nan=False)
    assert metrics.lyapunov is None
    assert "a single episode" in metrics.reasons["lyapunov"]


def test_figures_are_those_of_the_model(metrics):
    assert metrics.probes.linear.worst_r2 > 0.999
    assert metrics.probes.mlp.worst_r2 > 0.99
    states, _ = simulate(40, 45, 2)
    angle = metrics.forecast.angle
    lead = np.median(np.abs(0.2 * states[:, 1, 2:] * 20 * DT))
    assert_allclose(angle.error["20"], lead, atol=0.05)
    turned = np.median(np.abs(states[:, 1, 2:] * 5 * DT))
    assert_allclose(angle.persistence["5"], turned, atol=1e-6)
    assert list(angle.error) == ["0", "5", "10", "20", "30", "40"]
    assert len(angle.median_by_step) == len(angle.persistence_by_step) == 44
    first_above = np.argmax(np.array(angle.median_by_step) >= 0.3)
    assert angle.horizon.steps == first_above - 1
    assert metrics.forecast.frames.psnr_persistence["0"] is None
    assert metrics.forecast.latent.error["5"] > 0.0
    assert metrics.collapse.dimensions == 8
    spectrum = metrics.collapse.spectrum
    assert sum(spectrum) == pytest.approx(sum(s**2 for s in metrics.collapse.std.per_dimension))
    assert spectrum == sorted(spectrum, reverse=True)
    assert 2.0 < metrics.collapse.effective_rank <= 6.0


def test_hands_without_friction_are_not_chaotic_and_conserve_energy(metrics):
    assert metrics.lyapunov.exponent_per_second < 0.2
    assert metrics.lyapunov.trajectories == 40
    assert metrics.lyapunov.seconds == 20.0
    horizon = metrics.forecast.angle.horizon
    assert horizon.lyapunov_times == pytest.approx(horizon.seconds / metrics.lyapunov.time_seconds)
    assert abs(metrics.energy.drift["20"]) < 0.1 * metrics.energy.true_std
    assert not metrics.actions.varied_in_training
    assert metrics.actions.angle.midpoint["20"] > 1.1 * metrics.actions.angle.true["20"]


def test_the_lyapunov_exponent_has_an_error_bar_and_a_time_only_if_it_is_positive(world):
    class Chaos(FreeHands):
        exponents = np.array([1.0, 2.0, 3.0])

        def lyapunov_exponents(self, states, seconds):
            assert states.shape == (40, 4)
            return self.exponents

    class Order(Chaos):
        exponents = np.array([-1.0, -2.0, -3.0])

    chaos = evaluate(MODEL, *world, FAST, plugin=Chaos()).lyapunov
    assert chaos.exponent_per_second == 2.0
    assert chaos.standard_error == pytest.approx(1.0 / np.sqrt(3))
    assert chaos.time_seconds == 0.5
    order = evaluate(MODEL, *world, FAST, plugin=Order())
    assert order.lyapunov.time_seconds is None
    assert order.forecast.angle.horizon.lyapunov_times is None


def test_parts_that_were_not_given_are_none_and_have_a_reason(world):
    train, held = world
    metrics = evaluate(MODEL, train, HeldOut(held.main), FAST, plugin=PLUGIN)
    assert metrics.actions is metrics.energy is metrics.reference is None
    assert "no driven episodes" in metrics.reasons["actions"]
    assert "no passive episodes" in metrics.reasons["energy"]
    assert "0 updates" in metrics.reasons["reference"]
    assert "no driven episodes" in metrics.reasons["returns"]
    assert set(metrics.reasons) == {"actions", "energy", "reference", "returns"}


def test_the_state_of_an_unknown_environment_is_probed_without_angles(world):
    metrics = evaluate(MODEL, *world, FAST, plugin=UNKNOWN, reference_updates=5)
    assert set(metrics.probes.mlp.r2) == {f"state_{i}" for i in range(4)}
    assert metrics.probes.mlp.angle_rmse_rad is None
    for part in ("lyapunov", "energy", "reference"):
        assert metrics.to_dict()[part] is None
        assert "not known for this environment" in metrics.reasons[part]
    assert metrics.forecast.angle is None
    assert "no angle among state_0" in metrics.reasons["forecast.angle"]
    assert metrics.actions.angle is None
    assert metrics.actions.latent.true["5"] is not None
    text = printed(metrics)
    assert "Lyapunov" not in text
    assert "state_3" in text
    assert "no angle among state_0" in text


def test_a_state_of_another_size_than_the_plugin_knows_is_probed_number_by_number(tmp_path):
    def store(name, states, actions, first_seed):
        longer = np.concatenate([states, states[..., :1]], axis=-1)
        return write_buffer(tmp_path / name, longer, actions, first_seed)

    train = store("train", *simulate(30, 12, 1), 0)
    held = store("held", *simulate(20, 20, 2), 20_000)
    heldout = HeldOut(held, passive=held, driven=held)
    metrics = evaluate(MODEL, train, heldout, FAST, plugin=PLUGIN, reference_updates=2)
    assert len(metrics.probes.linear.r2) == 5
    for part in ("lyapunov", "reference", "energy"):
        assert metrics.reasons[part] == "not known for this environment"


class OneHand:
    """A readout of the first angle only, which does not determine the state."""

    names, units, num_scored, angle_names = ("sin", "cos"), ("", ""), 2, ("θ1",)

    def __init__(self, state_dim):
        self.state_dim = state_dim

    def targets(self, states):
        return np.stack([np.sin(states[..., 0]), np.cos(states[..., 0])], axis=-1)

    def angles(self, targets):
        return np.arctan2(targets[..., :1], targets[..., 1:2])

    def true_angles(self, states):
        return states[..., :1]


def test_forecasts_have_angle_errors_for_any_readout_with_angles(world):
    class OneHanded(EnvPlugin):
        energy = staticmethod(PLUGIN.energy)

        def readout(self, state_dim):
            return OneHand(state_dim)

    metrics = evaluate(MODEL, *world, FAST, plugin=OneHanded("OneHand-v0", {"dt": DT}))
    states, _ = simulate(40, 45, 2)
    angle = metrics.forecast.angle
    turned = np.median(np.abs(states[:, 1, 2] * 5 * DT))
    assert_allclose(angle.persistence["5"], turned, atol=1e-6)
    assert angle.error["0"] < 0.1
    assert metrics.probes.mlp.angle_rmse_rad < 0.1
    assert metrics.actions.angle.true["5"] is not None
    assert "do not determine the state" in metrics.reasons["energy"]


def test_probes_are_compared_with_an_untrained_encoder_and_pixels(metrics):
    probes = metrics.probes
    assert probes.untrained.mlp.worst_r2 < 0.3
    assert probes.pixels.linear.worst_r2 < 0.9 < probes.linear.worst_r2
    assert probes.pixels.train_observations == probes.train_observations
    assert probes.mlp.r2["energy"] > 0.9
    assert probes.units["omega1"] == "rad/s"
    low, high = probes.mlp.worst_r2_interval
    assert low <= probes.mlp.worst_r2 <= high


def test_the_reference_model_is_compared_with_the_forecast(metrics):
    reference = metrics.reference
    assert reference.updates == 30
    assert reference.error["0"] == 0.0
    assert reference.error["5"] < metrics.forecast.angle.persistence["5"] / 2


def test_the_reference_model_is_evaluated_on_the_same_steps_as_the_forecast(tmp_path):
    given = []

    class Recording(FreeHands):
        def reference_errors(self, wm, train_buffer, states, actions, settings, updates, seed):
            given.append((states, actions, updates, seed))
            return np.zeros((states.shape[1], len(states), 2))

    train = write_buffer(tmp_path / "train", *simulate(20, 12, 1), 0)
    states, actions = simulate(40, 30, 2, push=1.0)
    held = HeldOut(write_buffer(tmp_path / "held", states, actions, 20_000))
    metrics = evaluate(MODEL, train, held, FAST, plugin=Recording(), reference_updates=3, seed=4)
    ((true, driving, updates, seed),) = given
    assert_allclose(true, states[:, 1:])
    assert_allclose(true[:, :-1, 2:] + driving, true[:, 1:, 2:], atol=1e-6)
    assert (updates, seed) == (3, 4)
    by_step = metrics.reference.median_by_step
    assert len(by_step) == len(metrics.forecast.angle.median_by_step)


def test_without_states_the_rest_is_still_measured(tmp_path):
    world = buffers(tmp_path, with_states=False)
    metrics = evaluate(MODEL, *world, plugin=PLUGIN, reference_updates=5)
    assert metrics.probes is metrics.forecast.angle is metrics.reference is metrics.energy is None
    for part in ("probes", "forecast.angle", "reference", "lyapunov", "energy", "actions.angle"):
        assert "does not hold the true state" in metrics.reasons[part]
        assert "--state-key" in metrics.reasons[part]
    assert metrics.forecast.frames.psnr["0"] > 20
    assert metrics.collapse.effective_rank > 2.0
    assert "does not hold the true state" in printed(metrics)


def test_without_a_decoder_the_rest_is_still_measured(world):
    metrics = evaluate(TinyModel(decodes=False), *world, plugin=PLUGIN)
    assert metrics.forecast.frames is None
    assert metrics.reasons["forecast.frames"] == "the model has no decoder"
    assert metrics.forecast.angle.error["20"] < 0.2
    assert "dB" not in printed(metrics)


def test_latents_belong_to_the_observation_asked_for(world):
    train, _ = world
    episodes, times = MODEL.frames.sample_times(train, 300, seed=1)
    z = encode_at(MODEL, train, episodes, times)
    frames = train.windows(episodes, times - 1, 2).frames
    assert times.min() == 1
    assert times.max() == 11
    observations = np.concatenate([frames[:, 0], frames[:, 1]], axis=-1)
    assert_allclose(z, MODEL.encode(observations), rtol=1e-5, atol=1e-5)


def test_training_episodes_are_rejected_as_held_out(world):
    with pytest.raises(ValueError, match="90 evaluation episodes were trained on"):
        evaluate(MODEL, world[0], HeldOut(world[0]), plugin=PLUGIN)


def test_a_diverged_encoder_is_an_error(world):
    class Diverged(TinyModel):
        def encode(self, obs):
            return super().encode(obs) * float("nan")

    with pytest.raises(ValueError, match="NaN or infinity"):
        evaluate(Diverged(), *world, plugin=PLUGIN)
