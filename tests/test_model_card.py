"""The model card of a run shows its results, and its texts stay in their places."""

import re
from dataclasses import replace

import pytest
import yaml
from reported import run_summary

import worldmodel
from worldmodel.evaluation.metrics import RunWarning
from worldmodel.hub import HubReference
from worldmodel.model_card import model_card
from worldmodel.run import Run

pytest.importorskip("huggingface_hub")
pytest.importorskip("safetensors")

NAME = "hf://alice/pendulum"


def test_texts_of_a_run_stay_in_their_places_on_the_card(run, tiny_report):
    evil = (
        "e`|\n---\n\n# T <script>x</script> ![a](http://b) www.c.d ```\n| 1 | 2 |\n$$ *b* @u &lt;"
    )

    def card(text):
        summary = replace(run_summary(text), env=text, updates={text: 1})
        warnings = [RunWarning(text, text, text)]
        metrics = replace(tiny_report.metrics, run=summary, warnings=warnings)
        values = {"env": {"id": text, "kwargs": {text: text}}, "data": {"policy": text}}
        config = run.config.model_copy(
            update={
                "env": run.config.env.model_copy(update=values["env"]),
                "data": run.config.data.model_copy(update=values["data"]),
            }
        )
        return model_card(metrics, config, run.model.spec, HubReference("a/b"), "mit", [])

    harmless, written = card("harmless"), card(evil)
    assert len(written.splitlines()) == len(harmless.splitlines())
    header, plain = (yaml.safe_load(text.split("---\n")[1]) for text in (written, harmless))
    assert header.keys() == plain.keys()
    assert header["tags"][:-1] == plain["tags"][:-1]
    assert re.fullmatch(r"[A-Za-z0-9.-]+", header["tags"][-1])

    def marks(text):
        body = text.split("---\n", 2)[2]
        return re.findall(r"(?<!\\)(?:\\\\)*([<>`*\[\]|#!@&$]|www\.)", body)

    assert marks(written) == marks(harmless)


def test_the_card_shows_results_intervals_warnings_and_pictures(driven_run, tmp_path):
    worldmodel.push(driven_run, NAME, dry_run=tmp_path / "files")
    card = (tmp_path / "files" / "README.md").read_text(encoding="utf-8")
    metrics = Run(driven_run).metrics
    error = metrics.forecast.angle.error["10"]
    low, high = metrics.forecast.angle.interval["10"]
    assert f"k = 10: median angle error, rad | {error:.3f} | {low:.3f} to {high:.3f} |" in card
    assert f'worldmodel.Run("{NAME}")' in card
    assert '<video src="forecast.mp4"' in card
    assert "](reconstruction.png)" in card
    assert all(f"**{warning.name}**" in card for warning in metrics.warnings)
    header = yaml.safe_load(card.split("---\n")[1])
    assert header["license"] == "mit"
    assert header["pipeline_tag"] == "reinforcement-learning"
    assert "DoublePendulumPixels-v0" in header["tags"]
