"""The Python code of README and docs runs, page by page, with small budgets.

Models are trained and agents learn for a few updates only; everything else is what the page says. A
page's blocks share their names, in order. ``<!-- not run: why -->`` or ``<!-- slow: why -->`` above
a block takes it out of the fast tests; the second is run by the slow ones.
"""

import functools
import shutil
import sys
from pathlib import Path

import pytest
from documents import PAGES, ROOT, blocks, saved_file
from stable_baselines3 import PPO

import worldmodel
from worldmodel import Run, training
from worldmodel.config import build_config, override, validate
from worldmodel.data import collect

CODE = {path.name: [b for b in blocks(path) if b.language == "python"] for path in PAGES}
SMALL = {
    "image_size": 16,
    "model": {"latent_dim": 8, "width": 4, "hidden": 32},
    "data": {"workers": 1, "size": 16, "min_steps": 0, "heldout_size": 4, "validation_size": 8},
    "phase1": {"updates": 2, "batch_size": 8},
    "refinement": {"updates": 2, "batch_size": 8},
    "phase2": {"updates": 2, "batch_size": 8, "head_updates": 2, "head_batch_size": 8},
    "evaluation": {
        "resamples": 20,
        "steps": 21,
        "domain_observations": 200,
        "probe": {"updates": 5, "observations": 200, "baseline_observations": 100},
        "reference": {"updates": 2},
    },
}
AGENT = {"steps": 32, "num_envs": 2, "eval_points": 1, "eval_episodes": 1, "max_eval_steps": 5}


def small(config):
    """Reduce what a configuration asks for to a second's work."""
    trained = {"phase1": {"epochs": None}, "phase2": {"epochs": None}}
    return validate(override(override(config.model_dump(mode="json"), trained), SMALL))


@pytest.fixture
def small_budgets(monkeypatch):
    """Train with a small budget; a run of built-in parts is the one that is trained already."""
    loop, train_agent, compare = training._train, Run.train_agent, Run.compare_agents
    ppo, learn = PPO.__init__, PPO.learn

    def train(run, watching):
        config = run.config
        own = config.data.sources or config.env.wrappers or ":" in config.model.encoder
        own = own or ":" in (config.env.id or "")
        watched = any(type(each).__module__ == "python.md" for each in watching.callbacks)
        return loop(run, watching) if own or watched else Run("results/run")

    @functools.wraps(ppo)
    def small_ppo(self, *args, **options):
        ppo(self, *args, **options | {"n_steps": 4, "batch_size": 8, "n_epochs": 1})

    monkeypatch.setattr(training, "build_config", lambda *a, **k: small(build_config(*a, **k)))
    monkeypatch.setattr(training, "_train", train)
    monkeypatch.setattr(Run, "train_agent", lambda self, **s: train_agent(self, **s | AGENT))
    monkeypatch.setattr(Run, "compare_agents", lambda self, **s: compare(self, (0,), **s | AGENT))
    monkeypatch.setattr(PPO, "__init__", small_ppo)
    monkeypatch.setattr(PPO, "learn", lambda self, n, *a, **o: learn(self, min(n, 64), *a, **o))


@pytest.fixture
def workspace(small_budgets, driven_run, tmp_path, monkeypatch):
    """A working directory with what the pages open."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(ROOT)
    monkeypatch.syspath_prepend(tmp_path)
    Path("dot.py").write_text(saved_file("dot.py"))
    shutil.copytree(driven_run, "results/run")
    collect(
        "DoublePendulumPixels-v0",
        "data/recorded",
        episodes=10,
        seeds=range(10),
        steps=20,
        image_size=16,
    ).close()
    worldmodel.data.convert("data/recorded", "recordings.h5")
    yield
    for name in ("examples.own_encoder", "dot"):
        sys.modules.pop(name, None)


def execute(block, names):
    """Run a block, with tracebacks that point into the page."""
    code = "\n" * block.line + block.text.replace("<run>", "run")
    exec(compile(code, block.page, "exec"), names)


def run_page(page, skipped):
    """Run the blocks of a page whose comments do not start with one of the given words."""
    if page == "data.md":
        shutil.copytree("data/recorded", "data/mine")
    names = {"__name__": page}
    for block in CODE[page]:
        if not block.note.startswith(skipped):
            execute(block, names)


@pytest.mark.parametrize("page", [name for name, found in CODE.items() if found])
def test_the_code_of_a_page_runs(page, workspace):
    run_page(page, skipped=("not run: ", "slow: "))


SLOW = [name for name, found in CODE.items() if any(b.note.startswith("slow: ") for b in found)]


@pytest.mark.slow
@pytest.mark.parametrize("page", SLOW)
def test_the_code_of_a_page_runs_with_its_slow_blocks(page, workspace):
    trained = Run("results/run").train_agent(on="dream")
    shutil.copytree(Path(trained["agent"]).parent, "results/run/rl/dream_ppo_200000_seed0")
    run_page(page, skipped=("not run: ",))


def test_an_error_in_the_code_of_a_page_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("Text.\n\n```python\nx = 1\n```\n\nMore.\n\n```python\nassert x == 2\n```\n")
    first, second = blocks(page)
    names = {}
    execute(first, names)
    with pytest.raises(AssertionError) as error:
        execute(second, names)
    assert error.traceback[-1].lineno + 1 == 10


def test_blocks_that_are_not_run_say_why():
    notes = {(b.page, b.note) for found in CODE.values() for b in found if ": " in b.note}
    assert notes == {
        ("sharing.md", "not run: needs the network"),
        ("extending.md", "slow: renders CartPole"),
        ("python.md", "slow: plans a whole episode"),
        ("python.md", "slow: trains four models on a Ray cluster"),
        ("rl.md", "slow: opens an agent that takes a while to train"),
        ("rl.md", "slow: trains agents"),
    }
