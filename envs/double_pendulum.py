"""Double-pendulum environments that observe the state, coordinates or pixels."""

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
    """A task with an observer."""

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
        """A copy of the current state `[θ1, θ2, ω1, ω2]`, (4,) float64, in rad and rad/s.

        Raises:
            ResetNeeded: If the environment was not reset yet.
        """
        state: Floats = self._current_history()[0, -1].copy()
        return state

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[npt.NDArray[Any], dict[str, Any]]:
        """Start an episode.

        Args:
            seed: Seed of the environment's random generator; None keeps the current generator.
            options: `{"state": [θ1, θ2, ω1, ω2]}` sets the start state, in rad and rad/s.

        Returns:
            The observation, and an info with the true `"state"`, (4,) float64.

        Raises:
            ValueError: If an option is unknown, or the state is not valid.
        """
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
        """Apply constant torques for `dt` seconds.

        Args:
            action: Torques as fractions of `max_torque`, (A,) in [-1, 1].

        Returns:
            The observation, the reward, terminated and truncated (always False here; `gym.make`
            adds the time limit), and an info with the true `"state"`, (4,) float64.

        Raises:
            ResetNeeded: If the environment was not reset yet.
            ValueError: If the action has another shape, or is NaN.
        """
        history = self._current_history()
        torques = self.task.torques(np.asarray(action)[None])
        states, rewards = self.task.advance(history[:, -1], torques)
        self._history = push(history, states)
        self._steps += 1
        self._torques, self._reward = torques[0], float(rewards[0])
        self._show()
        return self._observe(), self._reward, False, False, {"state": self.state}

    def render(self) -> Frames | None:
        """Render the current state.

        Returns:
            A frame, (render_size, render_size, 3) uint8, with `render_mode="rgb_array"`; otherwise
            None. With `render_mode="human"` the window is updated.

        Raises:
            ResetNeeded: If the environment was not reset yet.
        """
        if self.render_mode == "rgb_array":
            frame: Frames = self._scene.draw(self._current_history()[:, -1])[0]
            return frame
        if self.render_mode is None:
            gym.logger.warn('render() needs make(..., render_mode="rgb_array")')
        self._show()
        return None

    def get_keys_to_action(self) -> dict[str, npt.NDArray[np.float32]]:
        """Map keys to actions for `gymnasium.utils.play`.

        The keys a and d turn the shoulder, j and l the elbow.

        Returns:
            Combinations of keys mapped to actions, (A,) float32.
        """
        joints = [("", *_KEYS[joint]) for joint in ACTUATED[self.task.torque]]
        torques = dict(zip(itertools.chain(*_KEYS), (-1.0, 1.0, -1.0, 1.0))) | {"": 0.0}
        combinations = itertools.product(*joints)
        return {"".join(c): np.array([torques[k] for k in c], np.float32) for c in combinations}

    def close(self) -> None:
        """Close the window."""
        if self._window is not None:
            self._window.close()

    def _current_history(self) -> Floats:
        if self._history is None:
            raise ResetNeeded("the environment has no state yet; call reset() first")
        return self._history

    def _observe(self) -> npt.NDArray[Any]:
        observation: npt.NDArray[Any] = self._observer(self._current_history())[0]
        return observation

    def _show(self) -> None:
        if self._window is not None:
            frame = self._scene.draw(self._current_history()[:, -1])[0]
            effort = self._torques / self.task.max_torque
            self._window.show(frame, effort, self._steps * self.task.dt, self._reward)


class DoublePendulumEnv(_PendulumEnv):
    """
    ## Description

    Two point masses on massless rods swing in a vertical plane. Rod 1 turns about a fixed pivot,
    the shoulder, and rod 2 about the end of rod 1, the elbow. The goal is to swing the tip up with
    torques on one or both joints, and to balance it there. Without torque and damping the motion is
    chaotic and conserves its energy, to a relative error of 1e-6 over 10 s in simulation, which
    makes it a good benchmark for models that learn physics.

    The state is `[θ1, θ2, ω1, ω2]`. Angles are absolute, measured from hanging straight down,
    counter-clockwise positive, in (-π, π] rad; angular velocities are in rad/s. The state is
    returned as `info["state"]`, float64, by every reset and step. The equations of motion are in
    `worldmodel.envs.physics`.

    ## Action Space

    A `Box(-1, 1, (2,), float32)`: the torques on shoulder and elbow as fractions of `max_torque`,
    constant for `dt` seconds. Values outside the range are clipped. With `torque="shoulder"` or
    `torque="elbow"` the shape is `(1,)`.

    | Num | Action          | Control Min | Control Max |
    | --- | --------------- | ----------- | ----------- |
    | 0   | Shoulder torque | -1          | 1           |
    | 1   | Elbow torque    | -1          | 1           |

    The elbow torque acts on rod 2, and its reaction on rod 1 in the opposite direction.

    ## Observation Space

    With `observation="coordinates"`, a float32 array of shape `(4 * frame_stack,)`: the positions
    of both bobs in m at the last `frame_stack` steps, oldest first. The pivot is the origin and y
    points up. At reset the start positions are repeated.

    | Num | Observation | Min        | Max       |
    | --- | ----------- | ---------- | --------- |
    | 0   | x of bob 1  | -l1        | l1        |
    | 1   | y of bob 1  | -l1        | l1        |
    | 2   | x of bob 2  | -(l1 + l2) | l1 + l2   |
    | 3   | y of bob 2  | -(l1 + l2) | l1 + l2   |

    With `observation="state"`, a float32 array of shape `(6,)` for the current step only:

    | Num    | Observation    | Min        | Max       |
    | ------ | -------------- | ---------- | --------- |
    | 0 to 1 | sin θ1, sin θ2 | -1         | 1         |
    | 2 to 3 | cos θ1, cos θ2 | -1         | 1         |
    | 4 to 5 | ω1, ω2         | unbounded  | unbounded |

    ## Rewards

    The height of the tip after the step, from 0 at the lowest to 1 at the highest position, minus
    0.01 times the mean squared action and 0.001 times the mean square of ω1 and ω2. Balancing
    upright yields a reward of 1 per step, hanging at rest 0.

    ## Starting State

    With `start="down"`, for control, angles are uniform in ±0.1 rad and angular velocities in
    ±0.1 rad/s. With `start="uniform"`, for data collection, angles are uniform in ±π rad and
    angular velocities in ±π rad/s. `reset(options={"state": [θ1, θ2, ω1, ω2]})` sets the state;
    its angles are wrapped to (-π, π].

    ## Episode End

    The episode is truncated after 200 steps. It never terminates.

    ## Arguments

    | Parameter     | Type     | Default         | Description                              |
    | ------------- | -------- | --------------- | ---------------------------------------- |
    | `render_mode` | str      | `None`          | `"rgb_array"`, or `"human"` for a window |
    | `observation` | str      | `"coordinates"` | `"coordinates"` or `"state"`             |
    | `frame_stack` | int      | `2`             | Steps per observation of coordinates     |
    | `render_size` | int      | `512`           | Rendered height and width, in pixels     |
    | `dt`          | float    | `0.05`          | Seconds per step                         |
    | `torque`      | str      | `"both"`        | `"both"`, `"shoulder"` or `"elbow"`      |
    | `max_torque`  | float    | `10.0`          | Torque of action 1, in N m               |
    | `damping`     | float    | `0.0`           | Friction of the joints, in N m s/rad     |
    | `gravity`     | float    | `9.81`          | Gravitational acceleration, in m/s²      |
    | `lengths`     | 2 floats | `(1.0, 1.0)`    | Lengths of the rods, in m                |
    | `masses`      | 2 floats | `(1.0, 1.0)`    | Masses of the bobs, in kg                |
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

    With `render_mode="human"` a window shows the pendulum, both torques, the time and the reward in
    real time. When the window is closed, the environment continues without it. To control the
    pendulum with the keys a, d (shoulder) and j, l (elbow):

    ```python
    >>> from gymnasium.utils.play import play  # doctest: +SKIP
    >>> play(gym.make("DoublePendulum-v0", render_mode="rgb_array"))  # doctest: +SKIP

    ```

    ## Vectorized environment

    `gymnasium.make_vec` makes a native vector environment that simulates all pendulums in one call.
    Its observations are identical to those of single environments with the same seeds.

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
        settings = Task.of(DoublePendulumEnv, task)
        observer = vector_observer(settings, observation, frame_stack)
        super().__init__(settings, observer, render_mode, render_size)


class DoublePendulumPixelsEnv(_PendulumEnv):
    """
    ## Description

    The double pendulum of `DoublePendulumEnv`, observed as images only: angles must be inferred
    from the frames, and angular velocities from the difference between them. Frames are
    anti-aliased, show the position of a bob to a few hundredths of a pixel, and depend on the state
    only.

    ## Action Space

    As in `DoublePendulumEnv`: a `Box(-1, 1, (2,), float32)` of shoulder and elbow torques as
    fractions of `max_torque`, of shape `(1,)` with `torque="shoulder"` or `torque="elbow"`.

    ## Observation Space

    A uint8 array of shape `(image_size, image_size, frame_stack * C)`, where `C` is 3, or 1 with
    `grayscale=True`: the last `frame_stack` frames, concatenated along the channels, oldest first.
    At reset the first frame is repeated. The pivot is in the center of the frame, and the fully
    extended pendulum fits into it. The true state is in `info["state"]`, float64, for evaluation.

    | Num | Observation                    | Min | Max |
    | --- | ------------------------------ | --- | --- |
    | all | Red, green and blue, or gray   | 0   | 255 |

    ## Rewards

    As in `DoublePendulumEnv`: the tip height in [0, 1] minus 0.01 times the mean squared action and
    0.001 times the mean square of ω1 and ω2.

    ## Starting State

    As in `DoublePendulumEnv`: near rest with `start="down"`, anywhere with `start="uniform"`, or
    the state given by `reset(options={"state": [θ1, θ2, ω1, ω2]})`.

    ## Episode End

    The episode is truncated after 200 steps. It never terminates.

    ## Arguments

    Those of `DoublePendulumEnv` except `observation`, and:

    | Parameter     | Type | Default | Description                            |
    | ------------- | ---- | ------- | -------------------------------------- |
    | `image_size`  | int  | `64`    | Height and width of a frame in pixels  |
    | `grayscale`   | bool | `False` | One channel per frame instead of three |
    | `frame_stack` | int  | `2`     | Frames per observation                 |

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

    `gymnasium.make_vec` makes a native vector environment that simulates and draws all pendulums in
    one call. Its frames are identical to those of single environments with the same seeds.

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
        settings = Task.of(DoublePendulumPixelsEnv, task)
        observer = PixelObserver(settings, image_size, grayscale, frame_stack)
        super().__init__(settings, observer, render_mode, render_size)
