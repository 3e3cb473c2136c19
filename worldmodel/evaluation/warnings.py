"""What failed in a run, by its metrics: each warning with its value and how to fix it.

Shown in the terminal and at the top of the report. The thresholds are loose: a warning means that
a part is of no use, not that it could be better.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from worldmodel.callbacks import COLLAPSED_RANK
from worldmodel.evaluation.forecast_metrics import ActionErrors
from worldmodel.evaluation.metrics import Metrics, RunWarning

CHECKED_STEP = 10
"""Forecasts are checked at the last reported step up to this one."""

MIN_ACTION_EFFECT = 1.05
"""Ratio of the errors under shuffled and true actions below which actions have no effect."""

MIN_REWARD_R2 = 0.1
MIN_RECALL = 0.5
MAX_FALSE_POSITIVE_RATE = 0.1
MIN_TERMINATIONS = 10
MIN_UPDATES = {"phase1": 400, "phase2": 150}
MIN_TRAIN_EPISODES = 20
MIN_STEPS = 2000
MIN_HELDOUT_EPISODES = 8


def find_warnings(metrics: Metrics) -> list[RunWarning]:
    """Find what failed.

    Args:
        metrics: an evaluation; its own warnings are ignored.
    """
    checks = (
        _collapse,
        _decoder,
        _forecast,
        _actions,
        _reward,
        _termination,
        _outcomes,
        _data,
        _updates,
    )
    return [warning for check in checks for warning in check(metrics)]


def _collapse(metrics: Metrics) -> Iterator[RunWarning]:
    rank = metrics.collapse.effective_rank
    if rank < COLLAPSED_RANK:
        yield RunWarning(
            "collapse",
            f"The representation collapsed: the effective rank of the latents is {rank:.2f} of "
            f"{metrics.collapse.dimensions}.",
            "Use --objective vicreg, raise objective.variance_weight, or train longer (--updates).",
        )


def _decoder(metrics: Metrics) -> Iterator[RunWarning]:
    frames = metrics.forecast.frames
    if frames is None or frames.psnr_mean_frame is None:
        return
    psnr = frames.psnr["0"]
    if psnr is not None and psnr <= frames.psnr_mean_frame:
        yield RunWarning(
            "decoder",
            f"The decoder is worse than the mean frame: {psnr:.1f} dB at k = 0, where the mean "
            f"training frame has {frames.psnr_mean_frame:.1f} dB.",
            "Train phase 2 longer (--decoder-updates), or try --encoder conv or keypoints.",
        )


def _forecast(metrics: Metrics) -> Iterator[RunWarning]:
    latent = metrics.forecast.latent
    k = _checked(latent.error)
    if k is None:
        yield RunWarning(
            "short_episodes",
            "Forecasts could not be evaluated: most held-out episodes have one observation only.",
            _more_data(metrics),
        )
        return
    if not latent.persistence[k]:
        return
    error, persistence = latent.error[k], latent.persistence[k]
    if error is None or (persistence is not None and error >= persistence):
        shown = "diverges" if error is None else f"has an error of {error:.2f}"
        yield RunWarning(
            "forecast",
            f"Forecasts are no better than persistence: after {k} steps the latent {shown}, where "
            f"repeating the first latent has {persistence:.2f} (in units of the variance).",
            f"Train phase 1 longer (--updates). {_more_data(metrics)}",
        )


def _actions(metrics: Metrics) -> Iterator[RunWarning]:
    actions = metrics.actions
    if not metrics.data.several_actions:
        if metrics.energy is None:  # such an environment moves by itself
            yield RunWarning(
                "one_action",
                "The training data holds one action only: the model cannot know what actions do.",
                "Add episodes with other actions."
                if _own_data(metrics)
                else "Collect with --policy random, or with a policy of your own.",
            )
        return
    if actions is None:
        return
    ratios = {k: ratio for k, ratio in _action_effect(actions.latent).items() if k != "0"}
    if ratios and max(ratios.values()) < MIN_ACTION_EFFECT:
        k, ratio = max(ratios.items(), key=lambda item: item[1])
        yield RunWarning(
            "actions",
            "Actions have no effect on forecasts: with the actions of another episode the error "
            f"after {k} steps is {ratio:.2f} times that with the true ones.",
            "Train longer (--updates), on data with more varied actions."
            if _own_data(metrics)
            else ("" if _is_random(metrics) else "Collect with --policy random. ")
            + "Train longer (--updates), or skip frames if one step changes little (--frame-skip).",
        )


def _is_random(metrics: Metrics) -> bool:
    return metrics.run is not None and metrics.run.policy == "random"


def _action_effect(errors: ActionErrors) -> dict[str, float]:
    """Divide the error under shuffled actions by that under true ones, at each step."""
    ratios = {}
    for k, true in errors.true.items():
        shuffled = errors.shuffled[k]
        if true and shuffled is not None:
            ratios[k] = shuffled / true
    return ratios


def _reward(metrics: Metrics) -> Iterator[RunWarning]:
    reward = metrics.heads.reward
    if reward.std > 1e-6 and (reward.r2 is None or reward.r2 < MIN_REWARD_R2):
        shown = "is not finite" if reward.r2 is None else f"has an R² of {reward.r2:.2f}"
        yield RunWarning(
            "reward",
            f"Rewards were not learned: the predicted reward {shown} on held-out steps.",
            f"Rewards may be too rare in the data. {_more_data(metrics)} Do not train agents in "
            "the dream of this model.",
        )


def _termination(metrics: Metrics) -> Iterator[RunWarning]:
    heads = metrics.heads.termination
    recall, false_positives = heads.recall, heads.false_positive_rate
    if heads.terminations >= MIN_TERMINATIONS and recall is not None and recall < MIN_RECALL:
        yield RunWarning(
            "termination",
            f"Terminations were not learned: {recall:.0%} of {heads.terminations} held-out "
            "terminations are predicted.",
            "Train the heads longer (--set phase2.head_updates=3000), on more episodes that "
            f"terminate. {_more_data(metrics)}",
        )
    if false_positives is not None and false_positives > MAX_FALSE_POSITIVE_RATE:
        yield RunWarning(
            "false_terminations",
            f"The model predicts terminations that do not happen, on {false_positives:.0%} of the "
            "other held-out steps.",
            "Train the heads longer (--set phase2.head_updates=3000).",
        )


def _outcomes(metrics: Metrics) -> Iterator[RunWarning]:
    if not metrics.data.several_outcomes and not _own_data(metrics):
        yield RunWarning(
            "one_outcome",
            "The training data holds one reward only and no termination: an agent in the dream "
            "has nothing to learn from.",
            "Collect longer episodes (--steps), or with a policy that reaches the goal (--policy).",
        )


def _data(metrics: Metrics) -> Iterator[RunWarning]:
    episodes, steps = metrics.data.train_episodes, metrics.data.train_steps
    if episodes < MIN_TRAIN_EPISODES or steps < MIN_STEPS:
        yield RunWarning(
            "data",
            f"The model was trained on {episodes} episodes of {steps} steps in all, too few to "
            "cover most environments.",
            _more_data(metrics),
        )
    heldout, kind = metrics.data.heldout_episodes, metrics.data.kind
    if heldout < MIN_HELDOUT_EPISODES:
        yield RunWarning(
            "heldout",
            f"The results come from {heldout} {kind} episode{'s' * (heldout != 1)} only, and are "
            "uncertain.",
            "Add episodes: a tenth of own data is held out."
            if _own_data(metrics)
            else "Evaluate on more with --set data.heldout_size=256.",
        )


def _updates(metrics: Metrics) -> Iterator[RunWarning]:
    updates = metrics.run.updates if metrics.run else {}
    few = {name: n for name, n in updates.items() if n < MIN_UPDATES.get(name, 0)}
    if few:
        shown = " and ".join(f"{count} in {name}" for name, count in few.items())
        yield RunWarning(
            "updates",
            f"The model was trained for few updates: {shown}.",
            "Train longer with --updates and --decoder-updates, or --preset quick.",
        )


def _own_data(metrics: Metrics) -> bool:
    return metrics.run is not None and metrics.run.own_data


def _more_data(metrics: Metrics) -> str:
    """Say how to get more data, in a sentence."""
    if _own_data(metrics):
        return "Add more or longer episodes to the data."
    return "Collect more episodes (--size) or longer ones (--steps)."


def _checked(values: Mapping[str, object]) -> str | None:
    """Return the last reported step up to `CHECKED_STEP`; None if there is none but 0."""
    steps = [int(k) for k in values if 0 < int(k) <= CHECKED_STEP]
    return str(max(steps)) if steps else None
