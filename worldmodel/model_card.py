"""The model card of a run on the Hugging Face Hub: README.md, made from its metrics.

Names and texts of a run are escaped, so that they end neither the YAML header, nor a table, nor a
code block, and make no links.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import yaml

from worldmodel.trust import named_by_config, named_by_spec

if TYPE_CHECKING:
    from worldmodel.config import Config
    from worldmodel.evaluation.metrics import Metrics
    from worldmodel.hub import HubReference
    from worldmodel.models import ModelSpec

PIPELINE_TAG = "reinforcement-learning"
_TAGS = ("world-model", "jepa", "gymnasium")
_STEPS = ("5", "10", "20", "40")
_MAX_TEXT = 500
_NONE = "–"
_MARKUP = re.compile(r"[\\`*_\[\]{}<>|~#!&@:/$^]|(?<=www)\.", re.IGNORECASE)

Row = tuple[str, str, str, str]
"""What was measured, its value, its interval, and the value of persistence."""


def model_card(
    metrics: Metrics,
    config: Config,
    spec: ModelSpec,
    reference: HubReference,
    license: str,
    pictures: Sequence[str],
) -> str:
    """Write the model card.

    Args:
        metrics: evaluation of the run.
        config: its configuration, as it is published.
        spec: spec of the model.
        reference: the repository.
        license: identifier of the licence on the Hub.
        pictures: names of the pictures and videos in the repository.

    Returns:
        Markdown with a YAML header.
    """
    named = [*named_by_config(config), *named_by_spec(spec)]
    sections = [
        f"# {escape(reference.repo)}",
        _introduction(config, spec),
        *([_warnings(metrics)] if metrics.warnings else []),
        "## Use it",
        _usage(reference, named),
        "## Results on held-out episodes",
        _results(metrics),
        *_pictures(pictures),
        "## Training",
        _table(("setting", "value"), _settings(metrics, config)),
        "All settings are in [config.yaml](config.yaml), and all results in "
        "[metrics.json](metrics.json). The training data is not part of this repository; commands "
        "that need it collect it again.",
    ]
    return f"---\n{_header(metrics, license)}---\n\n" + "\n\n".join(sections) + "\n"


def escape(text: object) -> str:
    """Escape a text for Markdown: one line without formatting, links, HTML or new cells."""
    plain = "".join(c if c.isprintable() else " " for c in str(text))
    line = " ".join(plain.split())
    short = line if len(line) <= _MAX_TEXT else line[:_MAX_TEXT] + " …"
    return _MARKUP.sub(lambda mark: "\\" + mark[0], short)


def _header(metrics: Metrics, license: str) -> str:
    run = metrics.run
    env = [re.sub(r"[^A-Za-z0-9.-]+", "-", run.env).strip("-")] if run and run.env else []
    content = {
        "library_name": "worldmodel",
        "license": license,
        "pipeline_tag": PIPELINE_TAG,
        "tags": ["worldmodel", *_TAGS, *(tag[:80] for tag in env if tag)],
    }
    text: str = yaml.safe_dump(content, sort_keys=False)
    return text


def _introduction(config: Config, spec: ModelSpec) -> str:
    env = escape(config.env.id) if config.env.id is not None else "recorded episodes"
    kind = "pixels" if spec.pixels else "vectors"
    return (
        f"A JEPA world model of **{env}**, learned from {kind} with worldmodel. It encodes "
        f"{spec.frame_stack} stacked frames of shape {escape(spec.frame_shape)} into a latent of "
        f"{spec.latent_dim} numbers, predicts latents under actions "
        f"({escape(spec.actions)}), their rewards and terminations"
        + (", and decodes latents to frames." if spec.pixels else ".")
    )


def _warnings(metrics: Metrics) -> str:
    lines = [
        f"- **{escape(w.name)}**: {escape(w.message)} {escape(w.fix)}" for w in metrics.warnings
    ]
    return "\n".join(["## Warnings", "", *lines])


def _usage(reference: HubReference, named: Sequence[str]) -> str:
    code = (
        "```python\n"
        "import worldmodel  # with its extra: hub\n\n"
        f'run = worldmodel.Run("{reference}")\n'
        "env = run.make_env()  # the real environment\n"
        "obs, info = env.reset(seed=0)\n"
        "z = run.model.encode(obs[None])  # latent (1, D)\n"
        "dreams = run.imagine(num_envs=64)  # the model as a Gymnasium vector environment\n"
        "```\n\n"
        f"On the command line: `worldmodel rollout {reference}`, and likewise `evaluate`, `play`, "
        "`plan`, `rl` and `info`."
    )
    if not named:
        return code
    return (
        f"{code}\n\nThis run names code or directories ({escape('; '.join(named))}), which have to "
        "be installed. If you trust them: `worldmodel.Run(..., trust=True)`, or `--trust`."
    )


def _pictures(names: Sequence[str]) -> Iterator[str]:
    if "forecast.mp4" in names:
        yield (
            "Truth, open-loop forecast and reconstruction of held-out episodes "
            "([forecast.mp4](forecast.mp4)):"
        )
        yield '<video src="forecast.mp4" controls autoplay loop muted></video>'
    if "reconstruction.png" in names:
        yield "![Held-out frames, their reconstructions and forecasts](reconstruction.png)"
    if "forecast.png" in names:
        yield "![Forecast error against time](forecast.png)"


def _results(metrics: Metrics) -> str:
    data, statistics = metrics.data, metrics.statistics
    seeds = "" if data.heldout_seeds is None else ", seeds {} to {}".format(*data.heldout_seeds)
    rows = [*_forecast_rows(metrics), *_probe_rows(metrics), *_head_rows(metrics)]
    return (
        f"{data.heldout_episodes} episodes{seeds}; {statistics.confidence:.0%} intervals by "
        f"bootstrap over episodes.\n\n" + _table(("", "value", "interval", "persistence"), rows)
    )


def _forecast_rows(metrics: Metrics) -> Iterator[Row]:
    angle, frames = metrics.forecast.angle, metrics.forecast.frames
    if angle is not None:
        for k in _reported(angle.error):
            name = f"open-loop forecast, k = {escape(k)}: median angle error, rad"
            value, still = f"{angle.error[k]:.3f}", f"{angle.persistence[k]:.3f}"
            yield name, value, _interval(angle.interval[k], ".3f"), still
        horizon = angle.horizon
        name = f"horizon (median error below {horizon.threshold_rad:g} rad), steps"
        at_least = "≥ " if horizon.lower_bound else ""
        yield name, f"{at_least}{horizon.steps}", _interval(horizon.interval_steps, ".0f"), _NONE
    if frames is not None:
        for k in _reported(frames.psnr):
            value = _number(frames.psnr[k], ".1f", "exact")
            name = f"decoded forecast, k = {escape(k)}: PSNR, dB"
            still = _number(frames.psnr_persistence[k], ".1f", "exact")
            yield name, value, _interval(frames.psnr_interval[k], ".1f"), still
    latent = metrics.forecast.latent
    for k in _reported(latent.error):
        value = _number(latent.error[k], ".3f", "diverged")
        still = _number(latent.persistence[k], ".3f", _NONE)
        yield f"latent forecast, k = {escape(k)}: squared error / variance", value, _NONE, still


def _probe_rows(metrics: Metrics) -> Iterator[Row]:
    if metrics.probes is not None:
        for kind, score in (("linear", metrics.probes.linear), ("MLP", metrics.probes.mlp)):
            interval = _interval(score.worst_r2_interval, ".3f")
            name = f"{kind} probe of the true state, worst R²"
            yield name, f"{score.worst_r2:.3f}", interval, _NONE
    collapse = metrics.collapse
    yield f"effective rank of {collapse.dimensions}", f"{collapse.effective_rank:.1f}", _NONE, _NONE


def _head_rows(metrics: Metrics) -> Iterator[Row]:
    reward, end = metrics.heads.reward, metrics.heads.termination
    if reward.r2 is not None:
        yield "reward of an imagined step, R²", f"{reward.r2:.3f}", _NONE, _NONE
    if end.recall is not None:
        name = f"recall of {end.terminations} terminations"
        yield name, f"{end.recall:.0%}", _NONE, _NONE
    if metrics.returns is not None:
        for k, value in metrics.returns.rank_correlation.items():
            name = f"rank correlation of imagined and real returns, k = {escape(k)}"
            interval = _interval(metrics.returns.interval[k], ".2f")
            yield name, _number(value, ".2f", _NONE), interval, _NONE


def _reported(values: Iterable[str]) -> list[str]:
    steps = list(values)
    return [k for k in steps if k in _STEPS] or steps[-1:]


def _number(value: float | None, form: str, absent: str) -> str:
    return absent if value is None else format(value, form)


def _interval(bounds: tuple[float | None, float | None], form: str) -> str:
    low, high = bounds
    return _NONE if low is None or high is None else f"{low:{form}} to {high:{form}}"


def _settings(metrics: Metrics, config: Config) -> Iterator[tuple[str, str]]:
    data, run = metrics.data, metrics.run
    yield "environment", escape(config.env.id or _NONE)
    if config.env.kwargs:
        yield "arguments of the environment", escape(config.env.kwargs)
    yield "policy of the data", escape(config.data.policy)
    yield "training data", f"{data.train_episodes:,d} episodes, {data.train_steps:,d} steps"
    yield "encoder", escape(config.model.encoder)
    yield "objective", f"{escape(config.objective.name)}, horizon {config.objective.horizon}"
    if run is not None:
        updates = ", ".join(f"{escape(name)} {n:,d}" for name, n in run.updates.items())
        yield "updates", updates
        yield "parameters", f"{sum(run.parameters.values()):,d}"
    yield "seed", str(config.seed)


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Lay out cells, which are Markdown already, as a table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
