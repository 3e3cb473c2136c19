"""The configuration: presets, layers, round trips, and all errors at once."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from worldmodel.config import PRESETS, Config, build_config, dump, from_options, validate
from worldmodel.errors import ConfigError
from worldmodel.settings import merge, parse_setting, read_yaml


def test_one_set_of_defaults_serves_python_and_the_command_line():
    assert Config() == build_config()
    assert (Config().phase1.updates, Config().phase2.updates) == (1563, 469)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("mode", ["pendulum_image", "pendulum"])
@pytest.mark.parametrize("objective", ["vicreg", "sigreg", "variance", "prediction"])
def test_a_saved_configuration_reads_back_the_same(tmp_path, preset, mode, objective):
    config = build_config(from_options(mode=mode, objective=objective), preset=preset)
    path = tmp_path / "config.yaml"
    path.write_text(dump(config))
    assert validate(read_yaml(path)) == config


def test_all_errors_are_reported_together():
    with pytest.raises(ConfigError) as caught:
        build_config({"image_size": 33, "phase1": {"epoch": 3}, "data": {"size": "many"}})
    message = str(caught.value)
    assert "image_size" in message
    assert "multiple of 16, got 33" in message
    assert "unknown key 'phase1.epoch' (did you mean 'phase1.epochs'?)" in message
    assert "data.size" in message


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("modlx.encoder", "did you mean 'model.encoder'?"),
        ("modlx.latent_dmi", "did you mean 'model.latent_dim'?"),
        ("agent.ensmble.size", "did you mean 'agent.ensemble.size'?"),
        ("modlx", "did you mean 'model'?"),
        ("encoder", "did you mean 'model.encoder'?"),
        ("updates", "'phase1.updates' or 'refinement.updates' or 'phase2.updates'?"),
        ("phase1.lr", "expected one of batch_size, optimizer, learning_rate,"),
        ("no.such.key", "expected one of env, observation, image_size,"),
    ],
)
def test_an_unknown_key_comes_with_those_that_may_be_meant(key, hint):
    with pytest.raises(ConfigError) as caught:
        build_config(parse_setting(f"{key}=1"))
    assert f"unknown key {key!r} (" in str(caught.value)
    assert hint in str(caught.value)


def test_every_key_of_an_unknown_section_is_named():
    with pytest.raises(ConfigError) as caught:
        build_config({"modlx": {"encoder": "conv", "widthh": 4}})
    assert str(caught.value) == (
        "unknown key 'modlx.encoder' (did you mean 'model.encoder'?); "
        "unknown key 'modlx.widthh' (did you mean 'model.width'?)"
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"trackers": ["wandbb"]},
            "trackers: expected 'tensorboard', 'wandb' or 'trackio', got 'wandbb'",
        ),
        (
            {"agent": {"on": "x"}},
            "agent.on: expected 'latent', 'dream', 'pixels' or 'state', got 'x'",
        ),
        (
            {"objective": {"offsets": ["x"]}},
            "objective.offsets.0: expected a valid integer, got 'x'",
        ),
        ({"data": {"size": 0.5}}, "data.size: expected a valid integer, got 0.5"),
        ({"seed": -1}, "seed: expected a number greater than or equal to 0, got -1"),
        (
            {"model": {"encoder": "vit"}},
            "model.encoder: unknown encoder 'vit'; expected one of keypoints, conv, timm, mlp, or "
            "module:Name",
        ),
        (
            {"phase1": {"updates": 7, "epochs": 3}},
            "phase1: updates=7 and epochs=3: set one of the two",
        ),
    ],
)
def test_an_error_has_the_key_what_was_expected_and_the_value_once(changes, message):
    with pytest.raises(ConfigError) as caught:
        build_config(changes)
    assert str(caught.value) == message


def test_later_layers_win_and_leave_the_rest():
    config = build_config({"phase1": {"epochs": 3}}, {"phase1": {"batch_size": 16}})
    assert (config.phase1.epochs, config.phase1.batch_size) == (3, 16)


def test_presets_do_not_leak_into_each_other():
    before = yaml.safe_dump(PRESETS)
    build_config({"phase1": {"epochs": 3}}, preset="smoke")
    assert yaml.safe_dump(PRESETS) == before


def test_the_mode_chooses_the_environment_unless_one_is_named():
    assert build_config({}).env.id == "DoublePendulumPixels-v0"
    assert build_config(from_options(mode="pendulum")).env.id == "DoublePendulum-v0"
    named = build_config({"env": {"id": "CartPole-v1"}})
    assert named.env.id == "CartPole-v1"
    assert named.data.env_kwargs == {}
    assert build_config({}).data.env_kwargs == {"start": "uniform"}


def test_the_pendulum_starts_anywhere_whatever_else_is_set():
    changed = build_config({"data": {"env_kwargs": {"max_torque": 5}}})
    assert changed.data.env_kwargs == {"start": "uniform", "max_torque": 5}
    assert build_config({"data": {"env_kwargs": {"start": "down"}}}).data.env_kwargs == {
        "start": "down"
    }
    full = build_config({"env": {"id": "worldmodel:DoublePendulumPixels-v0"}})
    assert full.data.env_kwargs == {"start": "uniform"}
    assert full.objective.horizon == 16


def test_the_objective_fills_the_weights_not_given():
    assert build_config({"objective": {"name": "variance"}}).objective.variance_weight == 0.1
    given_one = build_config({"objective": {"name": "vicreg", "covariance_weight": 0.5}})
    assert given_one.objective.covariance_weight == 0.5
    assert given_one.objective.variance_weight == 1.0


def test_the_pendulum_is_unrolled_for_as_long_as_its_trajectories_allow():
    assert build_config().objective.offsets == (0, 1, 2, 4, 8, 16)
    assert build_config({"data": {"steps": 12}}).objective.horizon == 11
    assert build_config({"objective": {"offsets": [0, 3, 8]}}).objective.horizon == 8
    assert build_config({"env": {"id": "CartPole-v1"}}).objective.horizon == 8
    with pytest.raises(ConfigError, match=r"data\.steps"):
        build_config({"data": {"steps": "many"}})


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"objective": {"offsets": [0, 4, 2, 8]}}, "distinct and increasing"),
        ({"objective": {"offsets": [1, 8]}}, "begin at 0"),
        ({"objective": {"horizon": 5, "offsets": [0, 4]}}, "end at the horizon 5"),
        ({"data": {"steps": 5}, "objective": {"horizon": 8}}, "does not fit trajectories of 5"),
        ({"observation": "images"}, "'pixels' or 'vector', got 'images'"),
        ({"model": {"encoder": "vit"}}, "unknown encoder 'vit'; expected one of keypoints, conv"),
        ({"objective": {"name": "byol"}}, "unknown objective 'byol'; expected one of vicreg"),
        ({"agent": {"ensemble": {"size": 1}}}, "one predictor has nothing to disagree with"),
        ({"phase1": {"learning_rate": float("nan")}}, "finite number"),
        ({"data": 5}, "data: expected a section, data.KEY=VALUE .*got 5"),
        ({"objective": [1]}, "objective: expected a section"),
        ({"env": 5}, "env: .*got 5"),
        ({"data": {"env_kwargs": 5}}, "data.env_kwargs: .*got 5"),
    ],
)
def test_invalid_values_are_explained(changes, complaint):
    with pytest.raises(ConfigError, match=complaint):
        build_config(changes)


def test_the_encoder_follows_the_observation_unless_it_is_named():
    assert build_config({"observation": "vector"}).model.encoder == "mlp"
    named = {"observation": "vector", "model": {"encoder": "mypackage.nets:MyEncoder"}}
    assert build_config(named).model.encoder == "mypackage.nets:MyEncoder"
    assert build_config().model.encoder == "keypoints"


def test_options_become_settings_and_objects_become_references():
    values = from_options(batch_size=16, size=None, objective=build_config, mode="pendulum")
    assert values == {
        "env": {"id": "DoublePendulum-v0"},
        "observation": "vector",
        "phase1": {"batch_size": 16},
        "phase2": {"batch_size": 16},
        "objective": {"name": "worldmodel.config:build_config"},
    }
    with pytest.raises(
        TypeError, match=r"argument 'epoch' \(did you mean 'epochs'\?\); expected mode, env,"
    ):
        from_options(epoch=3)
    with pytest.raises(ConfigError, match="'pendulum_image' or 'pendulum', got 'pixels'"):
        from_options(mode="pixels")


def test_a_plug_in_of_the_environments_own_module_gives_defaults(tmp_path, monkeypatch):
    (tmp_path / "with_plugin.py").write_text(
        "from worldmodel.plugins import EnvPlugin, register_plugin\n"
        "class Mine(EnvPlugin):\n    config_defaults = {'objective': {'horizon': 3}}\n"
        "class Blind(EnvPlugin):\n    config_defaults = {'observation': 'vector'}\n"
        "register_plugin(['Mine-v0'], Mine)\n"
        "register_plugin(['Blind-v0'], Blind)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    mine = build_config({"env": {"id": "with_plugin:Mine-v0"}})
    assert (mine.objective.horizon, mine.objective.name, mine.frame_stack) == (3, "inverse", 3)
    blind = build_config({"env": {"id": "with_plugin:Blind-v0"}})
    assert (blind.model.encoder, blind.objective.name, blind.frame_stack) == ("mlp", "vicreg", 2)
    with pytest.raises(ConfigError, match=r"env\.id: cannot import the module of 'nosuch:X'"):
        build_config({"env": {"id": "nosuch:X"}})


def test_defaults_depend_on_the_observation_and_the_plug_in():
    def chosen(**values):
        config = build_config(values)
        return config.frame_stack, config.objective.name, config.objective.horizon

    assert chosen() == (2, "vicreg", 16)
    assert chosen(env={"id": "CartPole-v1"}) == (3, "inverse", 8)
    assert chosen(env={"id": "CartPole-v1"}, observation="vector") == (2, "vicreg", 8)
    assert chosen(env={"id": "CartPole-v1"}, frame_stack=4, data={"steps": 6}) == (4, "inverse", 3)
    given = {"name": "sigreg", "horizon": 5}
    assert chosen(env={"id": "CartPole-v1"}, objective=given) == (3, "sigreg", 5)
    sigreg = build_config({"env": {"id": "CartPole-v1"}, "objective": given}).objective
    assert (sigreg.sigreg_weight, sigreg.variance_weight) == (0.02, 0.0)


def test_another_objective_over_a_saved_configuration_has_its_own_weights():
    saved = build_config().model_dump(mode="json")
    changed = build_config(saved, {"objective": {"name": "sigreg"}}).objective
    assert (changed.variance_weight, changed.sigreg_weight) == (0.0, 0.02)
    kept = build_config(saved, {"objective": {"name": "vicreg", "variance_weight": 0.3}}).objective
    assert (kept.variance_weight, kept.covariance_weight) == (0.3, 0.05)
    assert build_config(saved, {"objective": {"horizon": 4}}).objective.offsets == (0, 1, 2, 4)
    assert build_config(saved, {"observation": "vector"}).model.encoder == "mlp"
    assert build_config(saved, {"seed": 3}).objective == build_config().objective


def test_an_unknown_preset_lists_the_known_ones():
    with pytest.raises(ConfigError, match="'fast', expected one of smoke, quick, standard"):
        build_config(preset="fast")


@pytest.mark.parametrize("text", ["phase1.epochs", "=3", "a=[1"])
def test_a_bad_setting_is_quoted(text):
    with pytest.raises(ConfigError, match=r"key=value|not YAML"):
        parse_setting(text)


def test_a_setting_is_nested_and_typed():
    assert parse_setting("phase1.epochs=20") == {"phase1": {"epochs": 20}}
    assert parse_setting("agent.kwargs.learning_rate=1e-4") == {
        "agent": {"kwargs": {"learning_rate": 1e-4}}
    }
    assert parse_setting("data.policy=e2e.zip") == {"data": {"policy": "e2e.zip"}}
    assert parse_setting("objective.offsets=[0, 2]") == {"objective": {"offsets": [0, 2]}}


def test_a_configuration_file_must_hold_a_mapping(tmp_path):
    path = tmp_path / "list.yaml"
    path.write_text("[1, 2]")
    with pytest.raises(ConfigError, match="holds list, expected sections"):
        read_yaml(path)
    with pytest.raises(ConfigError, match="cannot read the configuration"):
        read_yaml(Path("missing.yaml"))


keys = st.text("abc", min_size=1, max_size=2)
trees = st.recursive(
    st.integers(), lambda inner: st.dictionaries(keys, inner, max_size=3), max_leaves=8
).filter(lambda t: isinstance(t, dict))


@given(trees, trees)
def test_merging_keeps_every_leaf_of_the_upper_layer(base, changes):
    merged = merge(base, changes)

    def check(upper, result):
        for key, value in upper.items():
            if isinstance(value, dict) and value:
                check(value, result[key])
            elif not isinstance(value, dict):
                assert result[key] == value

    check(changes, merged)


@pytest.mark.parametrize(
    ("horizon", "offsets"), [(1, (0, 1)), (8, (0, 1, 2, 4, 8)), (12, (0, 1, 2, 4, 8, 12))]
)
def test_offsets_double_up_to_a_given_horizon(horizon, offsets):
    assert build_config({"objective": {"horizon": horizon}}).objective.offsets == offsets


def test_the_former_name_of_a_key_is_still_read():
    config = build_config({"evaluation": {"domain_error_rate": 0.25}})
    assert config.evaluation.ood_false_positive_rate == 0.25


@pytest.mark.parametrize("section", ["env", "data", "objective", "model"])
@pytest.mark.parametrize("value", [None, [], False, 3, "text"])
def test_a_section_that_is_no_section_is_named(section, value):
    with pytest.raises(ConfigError, match=rf"{section}: expected a section"):
        build_config({section: value})


@pytest.mark.parametrize("value", [True, 3, [4], "nowhere", ["nowhere"]])
def test_sources_that_are_no_data_are_an_error_of_the_configuration(value):
    with pytest.raises(ConfigError, match=r"data"):
        build_config({"data": {"sources": value}})


def test_the_use_of_the_device_is_automatic_or_switched_on_and_off():
    assert build_config().training.device_cache == "auto"
    for text, expected in {"on": True, "off": False, "true": True, "auto": "auto"}.items():
        config = build_config(parse_setting(f"training.prefetch={text}"))
        assert config.training.prefetch == expected
        assert validate(config.model_dump(mode="json")) == config
    with pytest.raises(ConfigError) as error:
        build_config({"training": {"precision": "half", "prefetch": "maybe"}})
    assert str(error.value) == (
        "training.precision: expected 'auto', 'float32' or 'bfloat16', got 'half'; "
        "training.prefetch: expected 'auto', True or False, got 'maybe'"
    )


def test_the_keys_of_a_layer_are_dotted_or_nested():
    dotted = build_config({"data.heldout_size": 32, "data": {"size": 99}, "data.steps": 20})
    assert (dotted.data.heldout_size, dotted.data.size, dotted.data.steps) == (32, 99, 20)
    assert dotted == build_config({"data": {"heldout_size": 32, "size": 99, "steps": 20}})
    with pytest.raises(ConfigError, match=r"unknown key 'data.held' "):
        build_config({"data.held": 32})
