"""Collection in several processes stores what one process stores, and leaves none behind."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import gymnasium as gym
import numpy as np
import psutil
import pytest
import tiny_env
from test_collect import gather, stored_bytes

from worldmodel.data import Policy, resolve, workers
from worldmodel.data.workers import choose_workers
from worldmodel.registry import reference

HERE = Path(__file__).parent
IN_WORKER = multiprocessing.parent_process() is not None


class Fragile(tiny_env.TinyEnv):
    """Goes wrong in the third step, in workers only."""

    def __init__(self, how="raise", **kwargs):
        super().__init__(**kwargs)
        self.how = how
        if IN_WORKER and how == "make":
            raise ValueError("the port is in use")

    def step(self, action):
        if IN_WORKER and self._step == 2:
            if self.how == "exit":
                os._exit(3)
            raise (
                UnpicklableError("rope")
                if self.how == "unpicklable"
                else ValueError("the rope broke")
            )
        return super().step(action)


class UnpicklableError(ValueError):
    """An error that is made from other arguments than it keeps."""

    def __init__(self, what, *, kind="broke"):
        super().__init__(f"the {what} {kind}")
        self.lock = threading.Lock()


class ProcessState(tiny_env.TinyEnv):
    """Its state identifies its process."""

    def _observe(self):
        threads = {os.environ.get(name) for name in workers._THREADS} == {"1"}
        state = [os.getpid(), threads, "torch" in sys.modules, "worldmodel.cli" in sys.modules]
        return super()._observe()[0], {"state": np.array(state, float)}


class Slow(tiny_env.TinyEnv):
    """Reports that it plays, and takes its time."""

    def step(self, action):
        if IN_WORKER:
            Path(f"playing-{os.getpid()}").touch()
            time.sleep(0.05)
        return super().step(action)


class Following(Policy):
    """Acts on its observations, or on stored frames."""

    frame_input = None

    def bind(self, action_space, observation_space, steps):
        def act(t, observation):
            assert observation.shape == (8, 8, 6)
            return observation[0, 0, :2].astype(np.float32) / 512

        return lambda seed: act


class FollowingFrames(Following):
    frame_input = ((8, 8, 3), 2)


def no_children():
    """Whether only the helper of `multiprocessing` is left, which ends with its parent."""
    children = psutil.Process().children(recursive=True)
    return not [c for c in children if "resource_tracker" not in " ".join(c.cmdline())]


TINY = {
    "env_id": "tiny_env:Tiny-v0",
    "env_kwargs": {"length": (1, 9), "terminates": True},
    "image_size": 8,
}
STACKED = {"env_kwargs": {"length": (1, 9), "frame_stack": 2}}


@pytest.mark.parametrize(
    "settings",
    [
        {"env_id": "CartPole-v1", "image_size": 16, "steps": 15},
        TINY,
        TINY | {"observation": "render", "env_kwargs": {"actions": "discrete", "length": (2, 5)}},
        TINY | {"observation": "vector", "env_kwargs": {"observation": "vector"}},
        TINY | STACKED | {"policy": Following()},
        TINY | {"policy": FollowingFrames()},
        TINY | {"wrappers": [lambda env: gym.wrappers.TransformReward(env, np.negative)]},
    ],
    ids=[
        "renderings",
        "images",
        "discrete",
        "vectors",
        "observations",
        "stored frames",
        "wrappers",
    ],
)
def test_the_bytes_do_not_depend_on_the_number_of_workers(tmp_path, settings):
    contents = []
    for count in (1, 3 if settings is TINY else 2):
        path = tmp_path / str(count)
        buffer = gather(path, seeds=range(20, 27), workers=count, **settings)
        assert buffer.seeds.tolist() == list(range(20, 27))
        contents.append(stored_bytes(path))
    assert len(contents[0]["frames.bin"]) > 0
    assert contents[1] == contents[0]
    assert no_children()


def test_each_worker_has_one_thread_and_imports_neither_torch_nor_the_command_line(tmp_path):
    buffer = gather(tmp_path, "test_workers:ProcessState", seeds=range(4), workers=2)
    states = buffer.states(range(4), [0] * 4, 6)
    assert len(set(states[..., 0].ravel()) - {os.getpid()}) == 2
    assert states[..., 1].all()
    assert not states[..., 2:].any()
    assert os.getpid() not in states[..., 0]


@pytest.mark.parametrize("how", ["raise", "unpicklable"])
def test_an_error_in_a_worker_is_raised_as_it_is(tmp_path, capfd, how):
    kind = ValueError if how == "raise" else RuntimeError
    with pytest.raises(kind, match=r"the rope broke\n") as caught:
        gather(tmp_path, "test_workers:Fragile", env_kwargs={"how": how}, workers=2)
    assert "in step" in caught.value.__notes__[0]
    assert no_children()
    assert capfd.readouterr().err == ""


def test_a_worker_that_dies_is_reported(tmp_path):
    with pytest.raises(ChildProcessError, match=r"died .*; collect in one process"):
        gather(tmp_path, "test_workers:Fragile", env_kwargs={"how": "exit"}, workers=2)
    assert no_children()


def test_an_environment_that_cannot_be_made_in_a_worker_is_played_here(tmp_path, monkeypatch):
    settings = {"env_id": "test_workers:Fragile", "env_kwargs": {"how": "make"}}
    with pytest.raises(ValueError, match="the port is in use"):
        gather(tmp_path / "asked", workers=2, **settings)
    monkeypatch.setattr(workers, "usable_cores", lambda: 2)
    monkeypatch.setattr(workers, "_is_worthwhile", lambda recipe, episodes: True)
    assert len(gather(tmp_path / "default", seeds=range(16), **settings)) == 16
    assert no_children()


def test_local_classes_are_played_in_workers_and_what_cannot_be_pickled_here(tmp_path):
    class Local(ProcessState):
        pass

    class Locked(ProcessState):
        lock = threading.Lock()

    buffer = gather(tmp_path / "local", reference(Local), workers=2)
    assert os.getpid() not in buffer.states([0], [0], 6)
    buffer = gather(tmp_path / "locked", reference(Locked), workers=2)
    assert (buffer.states([0], [0], 6)[..., 0] == os.getpid()).all()


def test_workers_are_chosen_by_cores_where_they_pay(monkeypatch):
    settings = {"policy": "random", "steps": 9, "image_size": 8, "observation": "auto"}
    tiny = resolve("Tiny-v0", {}, **settings)
    monkeypatch.setattr(workers, "usable_cores", lambda: 4)
    monkeypatch.setattr(workers, "_is_worthwhile", lambda recipe, episodes: True)
    assert choose_workers(tiny, 100, None) == 4
    assert choose_workers(tiny, 100, None, num_envs=3) == 3
    assert choose_workers(tiny, 15, None) == 1
    assert choose_workers(tiny, 15, 2) == 2
    assert choose_workers(tiny, 2, 9) == 2
    assert choose_workers(tiny, 100, 1) == 1
    pendulum = resolve("DoublePendulumPixels-v0", {}, **settings)
    assert choose_workers(pendulum, 100, 4) == 1
    with pytest.raises(ValueError, match="workers is 0; expected at least 1"):
        choose_workers(tiny, 100, 0)
    monkeypatch.setattr(workers, "_is_worthwhile", lambda recipe, episodes: False)
    assert choose_workers(tiny, 100, None) == 1


def test_steps_that_take_no_time_stay_in_this_process():
    recipe = resolve(
        "Tiny-v0", {}, policy="random", steps=9, image_size=8, observation="auto", state_key="state"
    )
    assert not workers._is_worthwhile(recipe, 16)


def test_a_script_without_a_main_guard_is_not_run_again_and_its_classes_work(tmp_path):
    (tmp_path / "script.py").write_text(
        """
print("running", flush=True)
import tiny_env
from worldmodel.data import collect
from worldmodel.registry import reference

class Mine(tiny_env.TinyEnv):
    pass

collect(reference(Mine), "buffer", episodes=4, seeds=range(4), steps=3, policy="random", workers=2)
print("done")
"""
    )
    path = os.pathsep.join(sys.path)
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert (done.stdout, done.stderr) == ("running\ndone\n", "")


@pytest.mark.skipif(sys.platform == "win32", reason="a terminal's Ctrl-C is sent to a group")
def test_ctrl_c_ends_all_processes_in_silence(tmp_path):
    """The signal goes to the whole process group, as from a terminal."""
    command = [sys.executable, "-m", "worldmodel", "collect", "buffer", "--env"]
    command += ["test_workers:Slow", "--env-kwargs", "length=[5000,5000]", "--policy", "random"]
    command += ["--size", "4", "--steps", "5000", "--workers", "2"]
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])}
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        env=env,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # if tests ignore it
    ) as process:
        while len(list(tmp_path.glob("playing-*"))) < 2 and process.poll() is None:
            time.sleep(0.02)
        children = psutil.Process(process.pid).children(recursive=True)
        os.killpg(process.pid, signal.SIGINT)
        error = process.communicate(timeout=60)[1]
    assert process.returncode == 1
    assert "stopped" in error
    assert "Traceback" not in error
    assert len(children) >= 2
    _, alive = psutil.wait_procs(children, timeout=30)
    assert not alive
