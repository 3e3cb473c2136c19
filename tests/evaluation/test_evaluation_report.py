"""The whole evaluation, on a tiny model whose figures are known, and the table of it."""

import importlib
import json

import gymnasium as gym
import numpy as np
import pytest
from free_hands import FreeHands
from numpy.testing import assert_allclose
from rich.console import Console
from tiny_model import DT, TinyModel, simulate, write_buffer

from worldmodel.data import ReplayBuffer
from worldmodel.evaluation import (
    HeldOut,
    choose_readout,
    comparison_table,
    evaluate,
    fit_probes,
    metrics_table,
)
from worldmodel.evaluation.observations import all_times, encode_at, observation_at, sample_times
from worldmodel.evaluation.privileged import HORIZON, sample_windows, train_privileged
from worldmodel.terminal import print_table

MODEL = TinyModel(rate=1.2)


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
    return evaluate(MODEL, *world, dt=DT, task=FreeHands(), privileged_updates=30)


def test_two_evaluations_agree_in_every_figure_with_probes_fitted_before_or_within(world, metrics):
    probes = fit_probes(MODEL, world[0], choose_readout(FreeHands(), 4), seed=0)
    again = evaluate(MODEL, *world, dt=DT, task=FreeHands(), privileged_updates=30, probes=probes)
    assert again == metrics


def test_the_report_survives_strict_json(metrics):
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics
    assert metrics["schema_version"] == 2


def test_the_report_says_what_it_was_taken_from(metrics):
    assert metrics["data"] == {
        "train_episodes": 90,
        "train_steps": 90 * 11,
        "train_seeds": [0, 89],
        "heldout_episodes": 40,
        "heldout_seeds": [20_000, 20_039],
    }
    assert metrics["probes"]["train_observations"] == 90 * 11
    assert metrics["probes"]["heldout_observations"] == 40 * 44


def test_figures_are_those_of_the_model(metrics):
    assert metrics["probes"]["linear"]["worst_r2"] > 0.999
    assert metrics["probes"]["mlp"]["worst_r2"] > 0.99
    states, _ = simulate(40, 45, 2)
    angle = metrics["forecast"]["angle"]
    lead = np.median(np.abs(0.2 * states[:, 1, 2:] * 20 * DT))
    assert_allclose(angle["error"]["20"], lead, atol=0.05)
    turned = np.median(np.abs(states[:, 1, 2:] * 5 * DT))
    assert_allclose(angle["persistence"]["5"], turned, atol=1e-6)
    assert list(angle["error"]) == ["0", "5", "10", "20", "30", "40"]
    assert len(angle["median_by_step"]) == len(angle["persistence_by_step"]) == 44
    first_above = np.argmax(np.array(angle["median_by_step"]) >= 0.3)
    assert angle["horizon"]["steps"] == first_above - 1
    assert metrics["forecast"]["frames"]["psnr_persistence"]["0"] is None
    assert metrics["forecast"]["latent"]["error"]["5"] > 0.0
    assert metrics["collapse"]["dimensions"] == 8
    spectrum = metrics["collapse"]["spectrum"]
    assert sum(spectrum) == pytest.approx(
        sum(s**2 for s in metrics["collapse"]["std"]["per_dimension"])
    )
    assert spectrum == sorted(spectrum, reverse=True)
    assert 2.0 < metrics["collapse"]["effective_rank"] <= 6.0


def test_free_hands_neither_part_faster_than_straight_lines_nor_lose_energy(metrics):
    assert metrics["lyapunov"]["exponent_per_second"] < 0.2
    assert metrics["forecast"]["angle"]["horizon"]["lyapunov_times"] > 0.0
    assert abs(metrics["energy"]["drift"]["20"]) < 0.1 * metrics["energy"]["true_std"]
    assert not metrics["actions"]["trained_on"]
    true, zeroed = (metrics["actions"]["angle"][name]["20"] for name in ("true", "zeroed"))
    assert zeroed > 1.1 * true


def test_what_was_not_given_is_left_out_with_a_word_why(world):
    train, held = world
    metrics = evaluate(MODEL, train, HeldOut(held.main), dt=DT, task=FreeHands())
    assert "no driven episodes" in metrics["actions"]["reason"]
    assert "no passive episodes" in metrics["energy"]["reason"]


def test_the_state_of_an_unknown_system_is_probed_but_not_taken_for_angles(world):
    train, held = world
    metrics = evaluate(MODEL, train, held, dt=DT, privileged_updates=5)
    assert set(metrics["probes"]["mlp"]["r2"]) == {f"state_{i}" for i in range(4)}
    for part in ("lyapunov", "energy", "privileged"):
        assert "only the double pendulum" in metrics[part]["reason"]
    assert "only the double pendulum" in metrics["forecast"]["angle"]["reason"]
    assert metrics["actions"]["latent"]["true"]["5"] is not None
    text = printed(metrics)
    assert "Lyapunov" not in text
    assert "state_3" in text


def test_training_is_seen_against_an_untrained_encoder_and_pixels(metrics):
    probes = metrics["probes"]
    assert probes["untrained"]["mlp"]["worst_r2"] < 0.3
    assert probes["pixels"]["linear"]["worst_r2"] < 0.9 < probes["linear"]["worst_r2"]
    assert probes["pixels"]["train_observations"] == probes["train_observations"]
    assert probes["mlp"]["r2"]["energy"] > 0.9
    low, high = probes["mlp"]["worst_r2_interval"]
    assert low <= probes["mlp"]["worst_r2"] <= high


def test_privileged_reference_stands_beside_the_forecast(metrics):
    privileged = metrics["privileged"]
    assert privileged["updates"] == 30
    assert privileged["error"]["0"] == 0.0
    assert privileged["error"]["5"] < metrics["forecast"]["angle"]["persistence"]["5"] / 2


def assert_actions_lead_from_state_to_state(states, actions):
    assert_allclose(states[:, :-1, 2:] + actions, states[:, 1:, 2:], atol=1e-6)


def test_privileged_reference_learns_from_actions_in_step_with_states(tmp_path):
    buffer = write_buffer(tmp_path, *simulate(50, 14, 3, push=1.0), 0)
    states, actions = sample_windows(buffer, np.random.default_rng(0), HORIZON + 1)
    assert states.shape[1] == HORIZON + 1
    assert_actions_lead_from_state_to_state(states, actions)


def test_privileged_reference_learns_what_actions_do(tmp_path):
    states, actions = simulate(200, 14, 3, push=1.0)
    buffer = write_buffer(tmp_path, states, actions, 0)
    model = train_privileged(buffer, action_vector=MODEL.action_vector, updates=60)
    errors = model.errors(states[:, 2:], actions[:, 2:])
    late = model.errors(states[:, 2:], np.roll(actions[:, 2:], 1, axis=1))
    assert errors.shape == (12, 200, 2)
    assert not errors[0].any()
    assert np.median(errors[8]) < 0.8 * np.median(late[8])


def test_privileged_reference_is_held_to_the_same_steps_as_the_forecast(tmp_path, monkeypatch):
    seen = []

    class Reference:
        def errors(self, states, actions):
            seen.append((states, actions))
            return np.zeros((states.shape[1], len(states), 2))

    module = importlib.import_module("worldmodel.evaluation.evaluate")
    monkeypatch.setattr(module, "train_privileged", lambda *args, **kwargs: Reference())
    train = write_buffer(tmp_path / "train", *simulate(20, 12, 1), 0)
    states, actions = simulate(40, 30, 2, push=1.0)
    held = write_buffer(tmp_path / "held", states, actions, 20_000)
    metrics = evaluate(MODEL, train, HeldOut(held), dt=DT, task=FreeHands(), privileged_updates=1)
    for given in seen:
        assert_actions_lead_from_state_to_state(*given)
    assert_allclose(np.concatenate([given[0] for given in seen]), states[:, 1:])
    by_step = metrics["privileged"]["median_by_step"]
    assert len(by_step) == len(metrics["forecast"]["angle"]["median_by_step"])


def test_without_states_the_rest_is_still_reported(tmp_path):
    world = buffers(tmp_path, with_states=False)
    metrics = evaluate(MODEL, *world, dt=DT, task=FreeHands(), privileged_updates=5)
    for part in (metrics["probes"], metrics["forecast"]["angle"], metrics["privileged"]):
        assert list(part) == ["reason"]
        assert "does not tell its true state" in part["reason"]
        assert "--state-key" in part["reason"]
    assert metrics["forecast"]["frames"]["psnr"]["0"] > 20
    assert metrics["collapse"]["effective_rank"] > 2.0
    assert "does not tell its true state" in printed(metrics)


def test_without_a_decoder_the_rest_is_still_reported(world):
    metrics = evaluate(TinyModel(decodes=False), *world, dt=DT, task=FreeHands())
    assert metrics["forecast"]["frames"] == {"reason": "the model has no decoder"}
    assert metrics["forecast"]["angle"]["error"]["20"] < 0.2
    assert "reason" in metrics["privileged"]
    assert "dB" not in printed(metrics)


def test_training_episodes_are_refused_as_held_out(world):
    with pytest.raises(ValueError, match="90 evaluation episodes were trained on"):
        evaluate(MODEL, world[0], HeldOut(world[0]), dt=DT)


def test_a_diverged_encoder_is_an_error_and_no_figure(world):
    class Diverged(TinyModel):
        def encode(self, obs):
            return super().encode(obs) * float("nan")

    with pytest.raises(ValueError, match="NaN or infinity"):
        evaluate(Diverged(), *world, dt=DT)


def printed(metrics):
    console = Console(width=160, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(metrics_table(metrics))
    return console.export_text()


def test_the_table_shows_the_figures(metrics):
    text = printed(metrics)
    angle = metrics["forecast"]["angle"]
    for k in ("0", "20", "40"):
        assert f"{angle['error'][k]:.3f}" in text
    assert f"{metrics['probes']['linear']['r2']['omega2']:.3f}" in text
    assert f"{angle['horizon']['steps']} steps" in text
    assert "true-state model, 30 updates" in text
    assert "exact" in text
    for end in angle["interval"]["20"]:
        assert f"{end:.3f}" in text
    assert f"{metrics['actions']['angle']['zeroed']['20']:.3f}" in text
    assert f"{metrics['forecast']['frames']['ssim']['20']:.3f}" in text
    assert f"{metrics['energy']['drift']['40']:+.2f} J" in text
    assert f"{angle['horizon']['lyapunov_times']:.1f} Lyapunov times" in text


def test_a_narrow_terminal_crops_no_number_and_breaks_no_word(metrics, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "40")
    print_table(metrics_table(metrics))
    narrow = capsys.readouterr().out.replace("─", "").split()
    assert narrow == printed(metrics).replace("─", "").split()


def test_runs_are_compared_row_by_row(metrics):
    facts = {"objective": "sigreg", "seed": 3, "trajectories": 90, "epochs": {"phase1": 7}}
    facts |= {"env": "Hands-v0", "policy": "passive"}
    runs = [
        {**metrics, "run": {"name": name, "parameters": {"encoder": 1200}, **facts}}
        for name in ("first_of_two_runs", "second_of_two_runs")
    ]
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(comparison_table(runs))
    text = console.export_text()
    for figure in ("sigreg", "1,200", f"{metrics['forecast']['angle']['error']['10']:.3f}"):
        (row,) = (line for line in text.splitlines() if figure in line)
        assert row.count(figure) == 2
    assert "first_of_two_runs" in text


def test_observations_join_frames_on_the_last_axis_oldest_first():
    frames = np.arange(2 * 5 * 3 * 4 * 2).reshape(2, 5, 3, 4, 2).astype(np.uint8)
    observation = observation_at(frames, 3, 3)
    assert observation.dtype == np.uint8
    assert (observation == np.concatenate([frames[:, 1], frames[:, 2], frames[:, 3]], -1)).all()
    vectors = frames.reshape(2, 5, 24).astype(np.float32)
    assert (
        observation_at(vectors, 1, 2) == np.concatenate([vectors[:, 0], vectors[:, 1]], -1)
    ).all()


@pytest.mark.parametrize("t", [0, 5])
def test_an_observation_needs_its_frames(t):
    with pytest.raises(IndexError, match="t runs from 1 to 4"):
        observation_at(np.zeros((2, 5, 3)), t, 2)


def test_every_observation_of_every_episode_is_counted_once(tmp_path):
    lengths = [4, 2, 1, 6]
    with ReplayBuffer.create(
        tmp_path,
        frame_shape=(2,),
        frame_dtype="float32",
        action_space=gym.spaces.Discrete(2),
        metadata={},
    ) as buffer:
        for seed, n in enumerate(lengths):
            if n > 1:
                frames = np.zeros((n, 2), np.float32)
                buffer.add_episode(frames, np.zeros(n - 1, int), np.zeros(n - 1), True, seed=seed)
    episodes, times = all_times(buffer, 2)
    assert list(zip(episodes, times)) == [
        (0, 1), (0, 2), (0, 3), (1, 1), (2, 1), (2, 2), (2, 3), (2, 4), (2, 5),
    ]  # fmt: skip
    few = list(zip(*sample_times(buffer, 2, 4, seed=0)))
    assert len(set(few)) == 4
    assert set(few) <= set(zip(episodes, times))


def test_latents_belong_to_the_observation_asked_for(world):
    train, _ = world
    episodes, times = sample_times(train, 2, 300, seed=1)
    z = encode_at(MODEL, train, episodes, times)
    frames = train.windows(episodes, times - 1, 2).frames
    assert times.min() == 1
    assert times.max() == 11
    assert_allclose(z, MODEL.encode(observation_at(frames, 1, 2)), rtol=1e-5, atol=1e-5)
