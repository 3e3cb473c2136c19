"""Sweep files: what they expand to, and what is wrong with them, all at once."""

import pytest
import yaml

from worldmodel.errors import ConfigError
from worldmodel.sweeps import read_sweep


def trials(**content):
    return read_sweep({"preset": "smoke", **content}, "out").trials


def test_variants_are_crossed_with_the_grid_and_the_seeds():
    made = trials(
        base={"model.latent_dim": 16, "phase1": {"batch_size": 16}},
        variants={"a b": None, "wide": {"model": {"width": 32}}},
        grid={"phase1.learning_rate": [1e-3, 5e-3], "phase2.updates": [3]},
        seeds=[4, 0],
    )
    assert [trial.name for trial in made[:2]] == [
        "a-b-phase1.learning_rate=0.001-phase2.updates=3_seed4",
        "a-b-phase1.learning_rate=0.005-phase2.updates=3_seed4",
    ]
    assert [trial.seed for trial in made] == [4] * 4 + [0] * 4
    last = made[-1]
    assert last.variant == "wide, phase1.learning_rate=0.005, phase2.updates=3"
    assert (last.config.seed, last.config.model.width, last.config.model.latent_dim) == (0, 32, 16)
    assert (last.config.phase1.learning_rate, last.config.phase1.batch_size) == (5e-3, 16)
    assert last.config.phase2.updates == 3
    assert str(last.config.output_dir) == "out"


def test_a_sweep_is_evaluated_on_validation_episodes_unless_it_says_otherwise():
    assert trials()[0].config.evaluation.split == "validation"
    assert trials(evaluate_on="heldout")[0].config.evaluation.split == "heldout"
    assert [(t.name, t.seed) for t in trials()] == [(f"base_seed{k}", k) for k in range(3)]


def test_a_trial_collects_with_as_many_processes_as_it_has_cpus():
    assert trials(resources={"cpus": 3})[0].config.data.workers == 3
    made = trials(resources={"cpus": 3}, base={"data.workers": 1})
    assert made[0].config.data.workers == 1


def test_a_grid_that_changes_the_objective_drops_the_weights_of_the_other():
    weights = {"vicreg": {"objective": {"name": "vicreg", "variance_weight": 3.0}}}
    made = trials(variants=weights, grid={"objective.name": ["sigreg"]})
    assert made[0].config.objective.sigreg_weight == 0.02
    assert made[0].config.objective.variance_weight == 0.0


def test_the_resolved_copy_gives_the_same_trials(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text("preset: smoke\nvariants: {x: {}, y: }\ngrid:\n  model.width: [4, 8]\n")
    sweep = read_sweep(path, None)
    assert str(sweep.output_dir) == "results/study"
    copy = tmp_path / "copy.yaml"
    copy.write_text(yaml.safe_dump(sweep.to_dict()))
    assert read_sweep(copy, sweep.output_dir).trials == sweep.trials


@pytest.mark.parametrize(
    ("content", "messages"),
    [
        (
            {"seeds": [0, 0], "resources": {"cpus": 0}, "epochs": 3, "metrics": ["probes.lin.r2"]},
            [
                "seeds: a value is listed twice",
                "resources.cpus: expected a number greater than or equal to 1, got 0",
                "unknown key 'epochs'",
                "metrics.0: probes has no 'lin'; expected one of train_observations",
            ],
        ),
        ({"metrics": ["forecast.latent.error"]}, ["metrics.0: it is not a number"]),
        ({"metrics": ["run.name"]}, ["it is not a number"]),
        ({"metrics": ["dt_seconds.x"]}, ["dt_seconds has no parts"]),
        (
            {"variants": {"a": {"phase1.lr": 1}, "b": {"model": {"width": 1}}, "c": {}}},
            [
                "variants.a: unknown key 'phase1.lr'",
                "variants.b: model.width: expected a number greater than or equal to 4, got 1",
            ],
        ),
        ({"base": {"x": 1}, "variants": {"a": {}, "b": {}}}, ["sweep: base: unknown key 'x'"]),
        (
            {"base": {"seed": 1}, "variants": {"a": {"output_dir": "b"}}},
            ["base: seed does not belong here: list it under seeds", "variants.a: output_dir"],
        ),
        (
            {"grid": {"evaluation.split": ["heldout"]}},
            ["grid.evaluation.split: evaluation.split does not belong here: it is evaluate_on"],
        ),
        ({"grid": {"model.width": []}}, ["grid.model.width: List should have at least 1 item"]),
        ({"grid": {"model.width": [4, 4]}}, ["grid.model.width: a value is listed twice"]),
        ({"variants": {"a b": {}, "A-b": {}}}, ["variants 'a b', 'A-b' need names that differ"]),
        ({"variants": {"../": {}}}, ["need names that differ in letters and digits"]),
    ],
)
def test_every_error_is_named_with_its_field(content, messages):
    with pytest.raises(ConfigError) as error:
        read_sweep(content, None)
    assert str(error.value).startswith("sweep: ")
    for message in messages:
        assert message in str(error.value)
    assert "variants.c" not in str(error.value)


def test_errors_name_the_file(tmp_path):
    path = tmp_path / "mine.yaml"
    for text in ("seeds: []", "base: 3", "variants: {a: {x: 1}}"):
        path.write_text(text)
        with pytest.raises(ConfigError, match=r"mine\.yaml: "):
            read_sweep(path, None)
    path.write_text("[1]")
    with pytest.raises(ConfigError, match=r"mine\.yaml holds list"):
        read_sweep(path, None)


def test_names_of_directories_stay_below_the_output_directory():
    (trial,) = trials(variants={"../../etc/x y": {}}, seeds=[0])
    assert trial.name == "etc-x-y_seed0"
