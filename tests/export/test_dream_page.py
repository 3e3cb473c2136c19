"""The page agrees with PyTorch and the true physics, is driven by the visitor, and is offline."""

import re

import numpy as np
import pytest
import torch
from browser import browser_page
from untrained import TINY, untrained_run

import worldmodel
from worldmodel.data import collect
from worldmodel.envs.task import Task
from worldmodel.export import dream
from worldmodel.viz.forecast_error import AngleError

STEPS = 20
DRIVE = """([start, vectors, actions]) => {
    dream.play(false);
    dream.reset(start);
    const { episode, world } = dream, steps = [];
    const note = () => steps.push({
        z: [...episode.z], reward: episode.reward, termination: episode.termination,
        distance: episode.distance, outside: episode.outside, error: episode.errors.at(-1),
        truth: episode.truth, trueReward: episode.trueReward,
        image: world.decoder ? [...world.decode(episode.z)] : null,
    });
    note();
    vectors.forEach((vector, i) => {
        episode.step(Float32Array.from(vector), actions[i]);
        note();
    });
    return steps;
}"""

PAD = """([axes, pressed]) => {
    const buttons = Array.from({ length: 16 }, (_, i) => ({ pressed: pressed.includes(i) }));
    navigator.getGamepads = () => [null, { connected: true, axes, buttons }];
}"""


@pytest.fixture(scope="module")
def pendulum(tmp_path_factory):
    """A run of the pendulum with unusual physics, and its page."""
    folder = tmp_path_factory.mktemp("pendulum")
    physics = {"damping": 0.3, "lengths": (1.2, 0.7), "masses": (0.5, 2.0), "torque": "elbow"}
    run = untrained_run(folder, env={"kwargs": physics, "frame_skip": 2})
    run.export(folder / "dream.html")
    return run, folder / "dream.html"


def until(tab, condition):
    """Wait; the page's own security policy forbids Playwright's `wait_for_function`."""
    for _ in range(500):
        if tab.evaluate(condition):
            return
        tab.wait_for_timeout(10)
    raise AssertionError(f"never: {condition}")


def drive(tab, run, start):
    """Take random steps in the page and in PyTorch; return the page's, and PyTorch's latents."""
    wm, rng = run.model, np.random.default_rng(start)
    if wm.spec.actions.kind == "box":
        actions = rng.uniform(-1, 1, (STEPS, wm.spec.actions.dim)).astype(np.float32)
        vectors = torch.as_tensor(actions)
    else:
        actions = rng.integers(wm.spec.actions.n, size=STEPS) + wm.spec.actions.start
        vectors = wm.action_vector(actions)
    found = tab.evaluate(DRIVE, [start, vectors.tolist(), actions.tolist()])
    z = torch.tensor([found[0]["z"]])
    for vector, step in zip(vectors[:, None], found[1:]):
        z_next = wm.predictor(z, vector)
        reward = wm.reward_head(z, vector, z_next)
        termination = wm.termination_head(z, vector, z_next).sigmoid()
        distance = wm.domain.distance(z_next) / wm.domain.radius
        assert step["reward"] == pytest.approx(float(reward), abs=1e-2)
        assert step["termination"] == pytest.approx(float(termination), abs=1e-2)
        assert step["distance"] == pytest.approx(float(distance), abs=1e-2, rel=1e-2)
        if abs(float(distance) - 1) > 1e-2:
            assert step["outside"] == bool(wm.domain.outside(z_next))
        z = z_next.clamp(wm.domain.low, wm.domain.high)
        np.testing.assert_allclose(step["z"], z[0], atol=1e-2)
        if wm.decoder is not None:
            image = wm.frames.newest(wm.decoder(z))[0].ravel()
            np.testing.assert_allclose(step["image"], image, atol=1e-2)
    assert np.ptp([step["z"] for step in found], axis=0).max() > 0.1
    return found, actions


def test_a_dream_and_the_true_pendulum_agree_with_python(pendulum):
    run, path = pendulum
    task = Task(damping=0.3, lengths=(1.2, 0.7), masses=(0.5, 2.0), torque="elbow")
    error = AngleError(run.probe, run.readout(4))
    with browser_page(path) as (tab, complaints):
        found, actions = drive(tab, run, 3)
        starts = tab.evaluate("dream.pendulum.states")
        latents = [tab.evaluate(f"(dream.reset({i}), [...dream.episode.z])") for i in range(3)]
    assert complaints == []
    assert len({tuple(state) for state in starts}) == 12
    assert np.ptp(starts, axis=0).min() > 1  # uniform, as in training
    assert np.ptp(latents, axis=0).max() > 0.01
    for before, after, action in zip(found, found[1:], actions):
        states, reward = np.array([before["truth"]]), 0.0
        for _ in range(2):
            states, rewards = task.advance(states, task.torques([action]))
            reward += rewards[0]
        np.testing.assert_allclose(after["truth"], states[0], atol=1e-9)
        assert after["trueReward"] == pytest.approx(reward, abs=1e-9)
        expected = error(np.array([after["z"]], np.float32), None, states)[0]
        assert after["error"] == pytest.approx(expected, abs=1e-2)
    assert np.ptp([step["error"] for step in found]) > 0.1


def test_own_data_starts_at_its_held_out_episodes(tmp_path):
    collect(TINY, tmp_path / "own", episodes=12, seeds=range(12), steps=5, image_size=16).close()
    sources = {"data": {"sources": [str(tmp_path / "own")], "policy": "recorded"}}
    run = untrained_run(tmp_path, env={"id": None}, **sources)
    assert run.export(tmp_path / "dream.html")["starts"].endswith("of held-out episodes")
    (tmp_path / "own").rename(tmp_path / "gone")
    result = worldmodel.Run(run.path, "cpu").export(tmp_path / "dream.html")
    assert result["starts"] == "12 of training observations, decoded"


@pytest.mark.parametrize(
    ("env", "changes"),
    [
        pytest.param(
            {"kwargs": {"actions": "from_one", "size": 16, "channels": 1}},
            {"model": {"encoder": "conv", "predictor": "direct"}, "frame_stack": 3},
            id="discrete-gray-direct",
        ),
        pytest.param(
            {"kwargs": {"observation": "vector"}}, {"observation": "vector"}, id="box-vector"
        ),
    ],
)
def test_other_environments_agree_with_python(tmp_path, env, changes):
    run = untrained_run(tmp_path, env={"id": TINY, **env}, **changes)
    run.export(tmp_path / "dream.html")
    with browser_page(tmp_path / "dream.html") as (tab, complaints):
        drive(tab, run, 0)
        tab.evaluate("dream.draw()")
        tab.keyboard.press("2")
        tab.keyboard.press("ArrowRight")
        if run.model.spec.actions.kind == "discrete":
            assert tab.evaluate("[...dream.controls.vector()]") == [0, 0, 1]
            assert tab.evaluate("dream.controls.action()") == [3]
        assert complaints == []


def test_the_identity_predictor_does_not_move(tmp_path):
    run = untrained_run(tmp_path, env={"id": TINY}, model={"predictor": "identity"})
    run.export(tmp_path / "dream.html")
    with browser_page(tmp_path / "dream.html") as (tab, _):
        before, after = tab.evaluate(
            "(() => { const e = dream.episode, z = [...e.z]; e.step(Float32Array.of(1, 1), [1, 2]);"
            " return [z, [...e.z]]; })()"
        )
        assert before == after


def test_a_large_decoder_is_packed_in_bytes(pendulum, tmp_path, monkeypatch):
    run, path = pendulum
    monkeypatch.setattr("worldmodel.export.network._LARGE", 1000)
    monkeypatch.setattr(dream, "MAX_BYTES", path.stat().st_size - 1000)
    result = run.export(tmp_path / "dream.html")
    assert result["bytes"] < path.stat().st_size - 1000
    with browser_page(tmp_path / "dream.html") as (tab, _):
        assert "i1" in tab.evaluate("dream.data.weights.map(([kind]) => kind)")
        drive(tab, run, 1)
    monkeypatch.setattr(dream, "MAX_BYTES", 1000)
    with pytest.raises(ValueError, match=r"more than 0\.001 MB"):
        run.export(tmp_path / "dream.html")


def test_the_visitor_drives_by_keys_touch_and_starts(pendulum):
    _, path = pendulum
    with browser_page(path, width=390, has_touch=True) as (tab, complaints):
        episode = "dream.episode"
        until(tab, f"{episode}.steps > 2")
        tab.keyboard.down("a")
        until(tab, "dream.controls.action()[0] === -1")
        assert tab.locator(".slider output").inner_text() == "-1.00"
        tab.keyboard.up("a")
        until(tab, "dream.controls.action()[0] === 0")
        tab.keyboard.press("Space")
        assert tab.locator("[data-play]").inner_text() == "Play"
        steps = tab.evaluate(f"{episode}.steps")
        tab.keyboard.press("n")
        assert tab.evaluate(f"{episode}.steps") == steps + 1
        tab.keyboard.press("r")
        assert tab.evaluate(f"{episode}.steps") == 0
        tab.keyboard.press(".")
        assert tab.evaluate(f"{episode}.start") == 1
        tab.locator('[data-start="4"]').tap()
        assert tab.evaluate(f"{episode}.start") == 4
        tab.locator('[data-act="faster"]').tap()
        tab.keyboard.press("Space")  # pauses: a tap leaves no focus behind
        tab.keyboard.press("Space")
        assert tab.locator("[data-speed]").inner_text() == "2×"
        slider = tab.locator(".slider input")
        box = slider.bounding_box()
        tab.mouse.move(box["x"] + box["width"] - 2, box["y"] + box["height"] / 2)
        tab.mouse.down()
        until(tab, "dream.controls.action()[0] > 0.9")
        tab.mouse.up()
        until(tab, "dream.controls.action()[0] === 0")
        tab.evaluate(PAD, [[-0.6, 0], []])
        until(tab, "Math.abs(dream.controls.action()[0] + 0.6) < 1e-6")
        tab.evaluate("dream.play(true)")
        tab.evaluate(PAD, [[0.05, 0], [9]])  # within the dead zone, and start: pauses
        until(tab, "dream.controls.action()[0] === 0 && !dream.view.playing")
        tab.evaluate(PAD, [[0, 0], [8]])
        until(tab, f"{episode}.steps === 0")
        tab.locator('[data-act="step"]').focus()
        tab.keyboard.press("Space")  # presses the button that has the focus, and only that
        assert tab.evaluate(f"{episode}.steps") == 1
        wide = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
        assert not tab.evaluate(wide)
        background = "getComputedStyle(document.body).backgroundColor"
        light = tab.evaluate(background)
        tab.emulate_media(color_scheme="dark")
        assert tab.evaluate(background) != light
        assert complaints == []


def test_an_episode_ends_where_termination_is_predicted(pendulum):
    _, path = pendulum
    with browser_page(path) as (tab, _):
        tab.evaluate("dream.world.terminationHead = () => [5]")
        until(tab, "dream.episode.over")
        steps = tab.evaluate("dream.episode.steps")
        tab.keyboard.press("n")
        assert tab.evaluate("dream.episode.steps") == steps
        assert "Termination predicted" in tab.locator("[data-state]").inner_text()
        tab.evaluate("dream.world.terminationHead = () => [-5]")
        tab.keyboard.press("r")
        assert not tab.evaluate("dream.episode.over")


def test_nothing_is_loaded_from_elsewhere(pendulum):
    text = pendulum[1].read_text()
    assert "default-src 'none'" in text
    assert not re.findall(r'(?:src|href)="(?!data:)|url\(|https?://', text)


def test_names_cannot_become_markup(pendulum, tmp_path, monkeypatch):
    run, _ = pendulum
    hostile = "</script><script>alert(1)</script>"
    monkeypatch.setattr(run, "path", tmp_path / "<img src=x onerror=alert(1)>")
    env = run.config.env.model_copy(update={"id": hostile})
    _ = run.domain, run.starts, run.dt, run.plugin
    monkeypatch.setattr(run, "config", run.config.model_copy(update={"env": env}))
    run.export(tmp_path / "dream.html")
    text = (tmp_path / "dream.html").read_text()
    assert "<script>alert" not in text
    assert "<img src=x" not in text
    assert "training observations, decoded" in text  # there is no such environment
    with browser_page(tmp_path / "dream.html") as (tab, complaints):
        assert tab.locator("h1").inner_text() == hostile
        assert complaints == []


def test_the_same_run_gives_the_same_bytes(pendulum, tmp_path):
    run, path = pendulum
    run.export(tmp_path / "again.html")
    assert (tmp_path / "again.html").read_bytes() == path.read_bytes()
