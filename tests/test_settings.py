"""Settings that adapt to the data: budgets, horizons, planner arguments, heads, baselines."""

from pathlib import Path

import numpy as np
import pytest
from tiny_training import new_model, tiny_buffer, tiny_config

from worldmodel.callbacks import Callback, CallbackList
from worldmodel.config import build_config, from_options
from worldmodel.data import ReplayBuffer
from worldmodel.errors import ConfigError, RunError
from worldmodel.evaluation.forecast import mean_frame
from worldmodel.files import read_json
from worldmodel.models import WorldModel
from worldmodel.planning.planners import make_planner
from worldmodel.run import Run
from worldmodel.settings import read_yaml
from worldmodel.training import fit_horizon, require_motion


@pytest.mark.parametrize("phase", ["phase1", "phase2"])
def test_updates_and_epochs_replace_each_other_and_are_not_given_together(phase):
    option = {"phase1": "", "phase2": "decoder_"}[phase]
    config = build_config(from_options(**{f"{option}epochs": 3}))
    budget = getattr(config, phase)
    assert (budget.epochs, budget.updates) == (3, None)
    again = build_config(config.model_dump(mode="json"), {phase: {"updates": 7}})
    budget = getattr(again, phase)
    assert (budget.epochs, budget.updates) == (None, 7)
    with pytest.raises(ConfigError, match="set one of the two"):
        build_config({phase: {"updates": 7, "epochs": 3}})


def test_a_horizon_that_half_of_the_episodes_are_too_short_for_is_lowered(tmp_path):
    class Messages(Callback):
        texts = ()

        def on_message(self, text, *, warning=False):
            self.texts = (*self.texts, text)

    config = tiny_config(output_dir=tmp_path)
    messages = Messages()
    with tiny_buffer(tmp_path / "buffer", config) as buffer:
        for length, horizon in ((13, 3), (4, 2)):
            run = Run.create(config)
            lengths = np.full(24, length)
            lengths[:8] = 13
            view = buffer.select(np.arange(24), np.zeros(24, int), lengths)
            fit_horizon(run, view, CallbackList([messages]))
            assert Run(run.path).config.objective.horizon == horizon
        assert len(messages.texts) == 1
        assert "lowered from 3 to 2" in messages.texts[0]
        with pytest.raises(ValueError, match="fewer than the 3 frames"):
            fit_horizon(run, buffer.select([0], [0], [2]), CallbackList([messages]))


def test_further_arguments_reach_the_planner():
    assert make_planner("mppi", samples=7, temperature=0.5).temperature == 0.5
    with pytest.raises(ConfigError, match=r"cannot construct the planner 'mppi'.*heat"):
        make_planner("mppi", heat=1)


def test_a_model_has_the_heads_of_its_spec():
    spec = new_model(tiny_config()).spec
    older = WorldModel(spec.model_copy(update={"heads": ("reward_head",)}))
    assert "termination_head" not in older.parts()
    assert {"reward_head", "encoder"} <= older.parts().keys()


def test_the_mean_frame_is_the_mean_over_observed_frames(tmp_path):
    config = tiny_config()
    with tiny_buffer(tmp_path / "buffer", config) as buffer:
        frames = buffer.windows(range(24), [1] * 24, 12).frames
        expected = frames.mean(axis=(0, 1))
        np.testing.assert_allclose(mean_frame(new_model(config), buffer), expected)


def test_frames_that_never_change_are_reported_before_training(tmp_path):
    frames = np.full((6, 16, 16, 3), 7, np.uint8)
    episode = {"frames": frames, "actions": np.zeros(5, int)}
    still = ReplayBuffer.from_episodes(tmp_path / "still", [episode] * 12)
    with still, pytest.raises(ValueError, match="first 12 training episodes are identical"):
        require_motion(still)
    moved = {
        **episode,
        "frames": frames + (np.arange(6) == 5)[:, None, None, None].astype(np.uint8),
    }
    with ReplayBuffer.from_episodes(tmp_path / "moves", [episode] * 11 + [moved]) as buffer:
        require_motion(buffer)


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="has no endless file")
def test_an_endless_file_is_no_configuration():
    with pytest.raises(ConfigError, match="it has more than 1 MB"):
        read_yaml(Path("/dev/zero"))
    with pytest.raises(RunError, match="it has more than 256 MB"):
        read_json(Path("/dev/zero"), "fix it")
