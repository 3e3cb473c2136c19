"""Goals of planning: chosen by name, and tested on states or latents."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_training import new_model, tiny_config

from worldmodel.planning import PlannedEpisode, StepOutcome, choose_goal, imagined_return
from worldmodel.plugins import EnvPlugin


class Tower(EnvPlugin):
    """A plug-in with one goal."""

    default_goal = "top"

    def goal_test(self, goal):
        return (lambda state: state[0] > 2.0) if goal == "top" else None

    def goal_description(self, goal):
        return "above 2 m"


def run_with(plugin=Tower, **planning):
    config = tiny_config(planning=planning)
    starts = torch.randn(400, 8, generator=torch.Generator().manual_seed(0))
    model = new_model(config).eval()
    return SimpleNamespace(
        config=config, model=model, starts=starts, plugin=plugin("Tower-v0", {}), path="run"
    )


def test_the_reward_has_no_test():
    goal = choose_goal("reward", run_with())
    assert goal.objective is imagined_return
    assert goal.reached is None
    assert goal.criterion is None


def test_goals_of_the_plugin_are_tested_on_the_true_state():
    goal = choose_goal("top", run_with())
    z = torch.zeros(1, 8)
    assert goal.objective is imagined_return
    assert goal.criterion == "above 2 m"
    assert goal.reached(StepOutcome({"state": np.array([2.5, 0.0])}, False, z)) is True
    assert goal.reached(StepOutcome({"state": [1.5, 0.0]}, False, z)) is False
    with pytest.raises(ValueError, match=r"no 'state'; set data\.state_key"):
        goal.reached(StepOutcome({}, False, z))


def test_unknown_goals_are_rejected_with_the_choices():
    with pytest.raises(ValueError, match="expected 'reward', 'top', or an image's path"):
        choose_goal("bottom", run_with())
    with pytest.raises(ValueError, match="expected 'reward', or an image's path"):
        choose_goal("top", run_with(EnvPlugin))


def test_an_image_is_reached_by_the_configured_fraction_of_training_latents(tmp_path):
    path = tmp_path / "goal.png"
    Image.fromarray(np.full((64, 64), 200, np.uint8)).save(path)
    for quantile in (0.25, 0.01):
        run = run_with(goal_quantile=quantile)
        goal = choose_goal(str(path), run)
        assert goal.criterion == (
            f"latent as close as the closest {100 * quantile:g}% of training latents"
        )
        reached = [goal.reached(StepOutcome({}, False, z[None])) for z in run.starts]
        assert np.mean(reached) == pytest.approx(quantile, abs=0.01)
        at_rest = np.full((1, 16, 16, 2), 200, np.uint8)
        assert goal.reached(StepOutcome({}, False, run.model.encode(at_rest)))
        far, near = (goal.objective(None, z.expand(3, 1, 8), None) for z in extremes(run, goal))
        assert far < near < 0


def test_a_goal_image_that_is_not_square_has_bars_like_the_frames_of_its_environment(tmp_path):
    path, run = tmp_path / "goal.png", run_with()
    Image.fromarray(np.full((32, 64), 200, np.uint8)).save(path)
    at_rest = np.zeros((1, 16, 16, 2), np.uint8)
    at_rest[:, 4:12] = 200
    objective = choose_goal(str(path), run).objective
    z = run.model.encode(at_rest)
    assert objective(None, z.expand(2, 1, 8), None).item() == pytest.approx(0, abs=1e-5)


def extremes(run, goal):
    z = run.model.encode(np.full((1, 16, 16, 2), 200, np.uint8))[0]
    return z + 5.0, z + 0.1


def test_files_that_are_no_images_are_rejected(tmp_path):
    (tmp_path / "goal.png").write_text("no image")
    with pytest.raises(ValueError, match="cannot read the image"):
        choose_goal(str(tmp_path / "goal.png"), run_with())


def test_success_is_holding_the_goal_for_successive_steps():
    episode = PlannedEpisode(at_goal=[True, True, False, True, True, True, False])
    assert episode.steps_to_success(2) == 2
    assert episode.steps_to_success(3) == 6
    assert episode.steps_to_success(4) is None
