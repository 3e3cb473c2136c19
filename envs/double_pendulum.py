"""Single double-pendulum environments: from state or coordinates, and from pixels."""

from __future__ import annotations

import itertools
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.error import ResetNeeded

from .observations import Observer, PixelObserver, require_size, vector_observer
from .physics import Floats
from .raster import Frames, Scene
from .task import ACTUATED, Task, pop_state, push, require, start_history
from .window import Window

_KEYS = (("a", "d"), ("j", "l"))


class _PendulumEnv(gym.Env[npt.NDArray[Any], npt.NDArray[np.float32]]):
    """A task seen through an observer."""

    metadata: dict[str, Any] = {  # noqa: RUF012
        "render_modes": ["human", "rgb_array"],
        "render_fps": 20,
    }

    def __init__(
        self, task: Task, observer: Observer, render_mode: str | None, render_size: int
    ) -> None:
        modes = self.metadata["render_modes"]
        choices = f"None or one of {', '.join(map(repr, modes))}"
        require(render_mode is None or render_mode in modes, "render_mode", render_mode, choices)
        require_size("render_size", render_size)
        self.task = task
        self.metadata = {**self.metadata, "render_fps": task.fps}
        self.render_mode = render_mode
        self.action_space = spaces.Box(-1.0, 1.0, (task.action_size,), np.float32)
        self.observation_space = observer.space
        self._observer = observer
        self._scene = Scene(task.lengths, int(render_size))
        self._window = Window(int(render_size), task.fps) if render_mode == "human" else None
        self._history: Floats | None = None  # (1, S, 4)
        self._steps = 0
        self._torques = np.zeros(2)
        self._reward = 0.0

    @property
    def state(self) -> Floats:
        """The current state `[θ1, θ2, ω1, ω2]`, (4,) float64, a copy."""
        return self._started()[0, -1].copy()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[npt.NDArray[Any], dict[str, Any]]:
        """Start an episode; `options={"state": [θ1, θ2, ω1, ω2]}` sets the state."""
        super().reset(seed=seed)
        states = pop_state(options, 1)
        if states is None:
            states = self.task.draw_start(self.np_random)[None]
        self._history = start_history(states, self._observer.stack)
        self._steps, self._torques, self._reward = 0, np.zeros(2), 0.0
        self._show()
        return self._observe(), {"state": self.state}

    def step(
        self, action: npt.NDArray[np.float32]
    ) -> tuple[npt.NDArray[Any], float, bool, bool, dict[str, Any]]:
        """Hold the torques for `dt` seconds."""
        history = self._started()
        torques = self.task.torques(np.asarray(action)[None])
        states, rewards = self.task.advance(history[:, -1], torques)
        self._history = push(history, states)
        self._steps += 1
        self._torques, self._reward = torques[0], float(rewards[0])
        self._show()
        return self._observe(), self._reward, False, False, {"state": self.state}

    def render(self) -> Frames | None:
        """The state as (render_size, render_size, 3) uint8, or None after updating the window."""
        if self.render_mode == "rgb_array":
            return self._scene.draw(self._started()[:, -1])[0]
        if self.render_mode is None:
            gym.logger.warn('render() needs a render mode: make(..., render_mode="rgb_array")')
        self._show()
        return None

    def get_keys_to_action(self) -> dict[str, npt.NDArray[np.float32]]:
        """Keys for `gymnasium.utils.play`: a, d turn the shoulder and j, l the elbow."""
        joints = [("", *_KEYS[joint]) for joint in ACTUATED[self.task.torque]]
        turn = dict(zip(itertools.chain(*_KEYS), (-1.0, 1.0, -1.0, 1.0))) | {"": 0.0}
        combinations = itertools.product(*joints)
        return {"".join(c): np.array([turn[k] for k in c], np.float32) for c in combinations}

    def close(self) -> None:
        """Close the window."""
        if self._window is not None:
            self._window.close()

    def _started(self) -> Floats:
        if self._history is None:
            raise ResetNeeded("the environment has no state yet: call reset() first")
        return self._history

    def _observe(self) -> npt.NDArray[Any]:
        return self._observer(self._started())[0]

    def _show(self) -> None:
        if self._window is not None:
            frame = self._scene.draw(self._started()[:, -1])[0]
            effort = self._torques / self.task.max_torque
            self._window.show(frame, effort, self._steps * self.task.dt, self._reward)


class DoublePendulumEnv(_PendulumEnv):
    """
    ## Description

    Two point masses on massless rods swing in a vertical plane: rod 1 turns about a fixed pivot,
    the shoulder, and rod 2 about the end of rod 1, the elbow. The goal is to swing the tip up with
    torques on one or both joints, and to keep it there. With zero torque the pendulum is passive,
    keeps its energy to 1e-6 over 10 s, and is chaotic: a good test for a model that learns physics.

    The state is `[θ1, θ2, ω1, ω2]`. Angles are absolute, measured from hanging straight down,
    counter-clockwise positive, in (-π, π] rad; rates are in rad/s. It is in `info["state"]`,
    float64, after every reset and step. The equations are in `worldmodel.envs.physics`.

    ## Action Space

    A `Box(-1, 1, (2,), float32)`: torques on shoulder and elbow, in shares of `max_torque`, held
    for `dt`. Larger values are clipped. With `torque="shoulder"` or `"elbow"` the shape is `(1,)`.

    | Num | Action          | Control Min | Control Max |
    | --- | --------------- | ----------- | ----------- |
    | 0   | Shoulder torque | -1          | 1           |
    | 1   | Elbow torque    | -1          | 1           |

    The elbow torque turns rod 2 and, as its reaction, rod 1 the other way.

    ## Observation Space

    With `observation="coordinates"`, a float32 array of `4 * frame_stack` numbers: the positions of
    both bobs in m, pivot at the origin, y up, of the last `frame_stack` steps, oldest first. At
    reset the first positions are repeated.

    | Num | Observation | Min        | Max       |
    | --- | ----------- | ---------- | --------- |
    | 0   | x of bob 1  | -l1        | l1        |
    | 1   | y of bob 1  | -l1        | l1        |
    | 2   | x of bob 2  | -(l1 + l2) | l1 + l2   |
    | 3   | y of bob 2  | -(l1 + l2) | l1 + l2   |

    With `observation="state"`, six float32 numbers, of the newest step only:

    | Num    | Observation    | Min        | Max       |
    | ------ | -------------- | ---------- | --------- |
    | 0 to 1 | sin θ1, sin θ2 | -1         | 1         |
    | 2 to 3 | cos θ1, cos θ2 | -1         | 1         |
    | 4 to 5 | ω1, ω2         | unbounded  | unbounded |

    ## Rewards

    The height of the tip after the step, 0 at its lowest and 1 at its highest, less 0.01 x the mean
    square action and 0.001 x the mean square of ω1 and ω2. Balancing upright earns 1 a step,
    hanging at rest 0.

    ## Starting State

    `start="down"`: angles and rates each uniform in ±0.1, near rest, for control.
    `start="uniform"`: angles uniform in ±π and rates in ±π rad/s, for data.
    `reset(options={"state": [θ1, θ2, ω1, ω2]})` sets the state; angles are wrapped.

    ## Episode End

    Truncation after 200 steps. The pendulum never terminates by itself.

    ## Arguments

    | Parameter     | Type     | Default         | Description                              |
    | ------------- | -------- | --------------- | ---------------------------------------- |
    | `render_mode` | str      | `None`          | `"rgb_array"`, or `"human"` for a window |
    | `observation` | str      | `"coordinates"` | `"coordinates"` or `"state"`             |
    | `frame_stack` | int      | `2`             | Steps in a coordinates observation       |
    | `render_size` | int      | `512`           | Side of rendered frames in pixels        |
    | `dt`          | float    | `0.05`          | Seconds a step                           |
    | `torque`      | str      | `"both"`        | `"both"`, `"shoulder"` or `"elbow"`      |
    | `max_torque`  | float    | `10.0`          | Torque of action 1, N m                  |
    | `damping`     | float    | `0.0`           | Viscous friction of joints, N m s/rad    |
    | `gravity`     | float    | `9.81`          | m/s²                                     |
    | `lengths`     | 2 floats | `(1.0, 1.0)`    | Rods, m                                  |
    | `masses`      | 2 floats | `(1.0, 1.0)`    | Bobs, kg                                 |
    | `start`       | str      | `"down"`        | `"down"` or `"uniform"`                  |

    ```python
    >>> import gymnasium as gym
    >>> env = gym.make("worldmodel:DoublePendulum-v0", observation="state", start="uniform")
    >>> observation, info = env.reset(seed=0, options={"state": [0.0, 0.0, 1.0, 0.0]})
    >>> observation
    array([0., 0., 1., 1., 1., 0.], dtype=float32)
    >>> info["state"]
    array([0., 0., 1., 0.])
    >>> gym.make("DoublePendulum-v0", start="up")
    Traceback (most recent call last):
    ...
    ValueError: start='up' is not valid: expected one of 'down', 'uniform'

    ```

    With `render_mode="human"` a window shows the pendulum, both torques, time and reward at real
    speed. Closing it ends the display and lets the run go on. To play with the keys a, d (shoulder)
    and j, l (elbow):

    ```python
    >>> from gymnasium.utils.play import play  # doctest: +SKIP
    >>> play(gym.make("DoublePendulum-v0", render_mode="rgb_array"))  # doctest: +SKIP

    ```

    ## Vectorized environment

    A native batched environment steps all pendulums in one call. It gives the same observations as
    single ones with the same seeds.

    ```python
    >>> envs = gym.make_vec("DoublePendulum-v0", num_envs=3)
    >>> envs
    DoublePendulumVectorEnv(DoublePendulum-v0, num_envs=3)
    >>> observations, infos = envs.reset(seed=0)
    >>> observations.shape, infos["state"].shape
    ((3, 8), (3, 4))

    ```

    ## Version History

    * v0: Initial version.
    """

    def __init__(
        self,
        render_mode: str | None = None,
        observation: str = "coordinates",
        frame_stack: int = 2,
        render_size: int = 512,
        **task: Any,
    ) -> None:
        settings = Task.of(**task)
        observer = vector_observer(settings, observation, frame_stack)
        super().__init__(settings, observer, render_mode, render_size)


class DoublePendulumPixelsEnv(_PendulumEnv):
    """
    ## Description

    The double pendulum of `DoublePendulumEnv`, seen as images only: nothing in an observation tells
    angles or rates, which must be read from the frames and from what changed between them. Frames
    are anti-aliased, place a bob to a few hundredths of a pixel, and depend on the state alone.

    ## Action Space

    As `DoublePendulumEnv`: a `Box(-1, 1, (2,), float32)` of shoulder and elbow torques in shares of
    `max_torque`, or shape `(1,)` with `torque="shoulder"` or `"elbow"`.

    ## Observation Space

    A uint8 array `(image_size, image_size, frame_stack * C)`, `C` 3, or 1 in grayscale: the last
    `frame_stack` frames along the channels, oldest first, newest last. At reset the first frame is
    repeated. The pivot is the centre of the frame, and the outstretched pendulum fits it. The state
    is in `info["state"]`, float64, for evaluation.

    | Num | Observation                | Min | Max |
    | --- | -------------------------- | --- | --- |
    | all | Red, green, blue, or gray  | 0   | 255 |

    ## Rewards

    As `DoublePendulumEnv`: tip height in [0, 1] less 0.01 x the mean square action and 0.001 x the
    mean square of ω1 and ω2.

    ## Starting State

    As `DoublePendulumEnv`: `start="down"` near rest, `start="uniform"` anywhere, or
    `reset(options={"state": [θ1, θ2, ω1, ω2]})`.

    ## Episode End

    Truncation after 200 steps. The pendulum never terminates by itself.

    ## Arguments

    Those of `DoublePendulumEnv` but `observation`, and:

    | Parameter     | Type | Default | Description                       |
    | ------------- | ---- | ------- | --------------------------------- |
    | `image_size`  | int  | `64`    | Side of an observation in pixels  |
    | `grayscale`   | bool | `False` | One channel a frame, not three    |
    | `frame_stack` | int  | `2`     | Frames in an observation          |

    ```python
    >>> import gymnasium as gym
    >>> env = gym.make("worldmodel:DoublePendulumPixels-v0", image_size=32, frame_stack=3)
    >>> observation, info = env.reset(seed=0)
    >>> observation.shape, observation.dtype
    ((32, 32, 9), dtype('uint8'))
    >>> gym.make("DoublePendulumPixels-v0", image_size=0)
    Traceback (most recent call last):
    ...
    ValueError: image_size=0 is not valid: expected an integer of at least 8 pixels, for example 64

    ```

    ## Vectorized environment

    A native batched environment steps and draws all pendulums in one call, pixel-identical to
    single ones with the same seeds.

    ```python
    >>> envs = gym.make_vec("DoublePendulumPixels-v0", num_envs=3, grayscale=True)
    >>> envs
    DoublePendulumPixelsVectorEnv(DoublePendulumPixels-v0, num_envs=3)
    >>> observations, infos = envs.reset(seed=0)
    >>> observations.shape, infos["state"].shape
    ((3, 64, 64, 2), (3, 4))

    ```

    ## Version History

    * v0: Initial version.
    """

    def __init__(
        self,
        render_mode: str | None = None,
        image_size: int = 64,
        grayscale: bool = False,
        frame_stack: int = 2,
        render_size: int = 512,
        **task: Any,
    ) -> None:
        settings = Task.of(**task)
        observer = PixelObserver(settings, image_size, grayscale, frame_stack)
        super().__init__(settings, observer, render_mode, render_size)
