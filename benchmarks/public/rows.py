"""The rows of the public benchmark: tasks with published results, and how each is measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from benchmarks.public.measures import Retrained, Score, dream_agent, push_t, two_room


class Published(NamedTuple):
    """A published result: the method, its value in the units of the row, and its source."""

    method: str
    value: str
    source: str


@dataclass(frozen=True)
class Row:
    """A public task.

    Attributes:
        title: the task in a few words.
        measure: function of the training seed, a directory for all files, and whether it is a
            smoke test.
        target: the value that this project aims at.
        metric: what the value is: the percentage of goals reached, or a mean return.
        published: published results.
        differences: how the protocol differs from that of the published results.
        needs: packages that it imports.
        install: what `pip install` is asked for to have them.
    """

    title: str
    measure: Callable[[int, Path, bool], Score]
    target: float
    metric: Literal["success", "return"]
    published: tuple[Published, ...]
    differences: str
    needs: tuple[str, ...] = ()
    install: str = "-e '.[benchmarks]'"

    @property
    def unit(self) -> str:
        """Unit of the value, as it is printed."""
        return "% of goals" if self.metric == "success" else "return"


_ZOO = "https://github.com/DLR-RM/rl-baselines3-zoo/blob/master/benchmark.md"
_LEWM = "https://arxiv.org/abs/2603.19312, figure 6"
_RANDOM = "https://github.com/lucas-maes/le-wm/issues/101; 0 in the paper, from another protocol"
_TWO_ROOM_PUBLISHED = (
    Published("random actions", "26", _RANDOM),
    Published("LeWM", "87", _LEWM),
    Published("PLDM", "97", _LEWM),
    Published("DINO-WM", "100", _LEWM),
)
_PEER_DIFFERENCES = (
    "Only the objective is that of the method, with its own weights. Data, networks, optimizer, "
    "number of updates and planner are those of tworoom, instead of a ViT, a transformer of three "
    "frames, AdamW and 100 epochs."
)
_AGENT_DIFFERENCES = (
    "The published agents observe the true state and act in the real environment; ours learns from "
    "pixels, in the model, and its real steps include the model's training data."
)

_ONE_OF_THREE: dict[str, Any] = {"size": 3, "penalty": 0, "rollouts": True}

_DM_DIFFERENCES = (
    "The published agents take 100,000 steps, see 84 x 84 pixels, with shadows, and are trained in "
    "the real environment. Ours is the best of three by validation episodes."
)
_DM_PACKAGES: dict[str, Any] = {
    "needs": ("shimmy", "dm_control"),
    "install": "'shimmy[dm-control]' 'mujoco<4'",
}

_DREAM_PPO: dict[str, Any] = {
    "dream_steps": 100,
    "normalize_rewards": True,
    "kwargs": {"n_steps": 64, "batch_size": 1024, "learning_rate": "lin_3e-4"},
    "eval_points": 1,
}


def _dm_control(
    task: str, wrappers: tuple[str, ...], frame_skip: int, agent: dict[str, Any], **schedule: Any
) -> Retrained:
    """Measure a task of dm_control with the settings that these rows share.

    Args:
        task: id of the environment, without namespace and version.
        wrappers: names of wrappers in `measures`, innermost first.
        frame_skip: environment steps per decision.
        agent: fields of `worldmodel.AgentConfig` that differ between the rows.
        schedule: further arguments of `Retrained`.
    """
    members = _ONE_OF_THREE | {"updates": 1000, "horizon": 8}
    return Retrained(
        f"dm_control/{task}-v0",
        make={
            "env_kwargs": {"render_kwargs": {"width": 128, "height": 128, "camera_id": 0}},
            "wrappers": [f"benchmarks.public.measures:{name}" for name in wrappers],
            "frame_skip": frame_skip,
        },
        settings={
            "model.encoder": "keypoints",
            "model.encoder_kwargs": {"blur": 2.0},
            "refinement.updates": 400,
        },
        agent=_DREAM_PPO | {"ensemble": members} | agent,
        **schedule,
    )


def _from_pixels(curl: str, drq: str) -> tuple[Published, Published]:
    """Published returns on dm_control after 100,000 environment steps."""
    return (
        Published("CURL", curl, "https://arxiv.org/abs/2004.04136"),
        Published("DrQ", drq, "https://arxiv.org/abs/2004.13649"),
    )


ROWS: dict[str, Row] = {
    "tworoom": Row(
        "swm/TwoRoom-v1, goals 25 steps ahead in expert episodes, budget 50",
        two_room(1000),
        98,
        "success",
        _TWO_ROOM_PUBLISHED,
        "Ours trains on 1,000 trajectories of random actions instead of expert episodes, from "
        "frames of 64 x 64 pixels instead of 224 x 224. The goals come from 200 new episodes of "
        "the same noisy expert, 50 goals for each training seed.",
        ("stable_worldmodel",),
    ),
    "tworoom-250": Row(
        "the same with 250 trajectories of training data",
        two_room(250),
        95,
        "success",
        _TWO_ROOM_PUBLISHED,
        "As in tworoom, with 250 trajectories of training data.",
        ("stable_worldmodel",),
    ),
    "tworoom-lewm": Row(
        "tworoom with the objective of LeWM",
        two_room(1000, "lewm"),
        98,
        "success",
        _TWO_ROOM_PUBLISHED,
        _PEER_DIFFERENCES,
        ("stable_worldmodel",),
    ),
    "tworoom-pldm": Row(
        "tworoom with the objective of PLDM",
        two_room(1000, "pldm"),
        98,
        "success",
        _TWO_ROOM_PUBLISHED,
        _PEER_DIFFERENCES,
        ("stable_worldmodel",),
    ),
    "pusht": Row(
        "gym_pusht/PushT-v0, goals 25 steps ahead in random episodes, budget 50",
        push_t,
        96,
        "success",
        (Published("LeWM", "96", _LEWM),),
        "Ours trains on 150,000 frames of random actions instead of 2,000,000 of experts, and the "
        "goals come from random episodes, in which the block moves less. Actions are absolute "
        "positions, not changes.",
        ("gym_pusht",),
    ),
    "cartpole": Row(
        "CartPole-v1, agent trained in the dream",
        dream_agent("CartPole-v1", {}, {"steps": 50_000, "loop": {"rounds": 3}}),
        490,
        "return",
        (Published("PPO, 100,000 steps", "500.0", _ZOO),),
        _AGENT_DIFFERENCES,
    ),
    "acrobot": Row(
        "Acrobot-v1, agent trained in the dream",
        dream_agent(
            "Acrobot-v1",
            {"size": 80, "steps": 500},
            {"steps": 200_000, "eval_points": 2, "loop": {"rounds": 3}},
        ),
        -85,
        "return",
        (Published("PPO, 1,000,000 steps", "-73.5", _ZOO),),
        _AGENT_DIFFERENCES,
    ),
    "pendulum": Row(
        "Pendulum-v1, agent trained in the dream",
        dream_agent("Pendulum-v1", {"size": 800}, {"steps": 200_000}),
        -180,
        "return",
        (
            Published("PPO, 100,000 steps", "-172.2", _ZOO),
            Published("SAC, 20,000 steps", "-157.0", _ZOO),
        ),
        _AGENT_DIFFERENCES,
    ),
    "mountaincar": Row(
        "MountainCarContinuous-v0, agent trained in the dream",
        dream_agent(
            "MountainCarContinuous-v0",
            {
                "size": 110,
                "steps": 300,
                "policy": "benchmarks.public.measures:LongHolds",
                "settings": {"data.validation_size": 16, "data.heldout_size": 32},
            },
            {
                "steps": 100_000,
                "gamma": 0.99,
                "dream_steps": 200,
                "normalize_rewards": True,
                "kwargs": {"use_sde": True},
                "eval_points": 1,
                "ensemble": _ONE_OF_THREE,
                "candidates": {"count": 3},
            },
        ),
        90,
        "return",
        (Published("SAC, 50,000 steps", "94.7", _ZOO),),
        _AGENT_DIFFERENCES,
    ),
    "dmc-cartpole": Row(
        "dm_control/cartpole-swingup-v0, 87,000 steps, agent trained in the dream",
        _dm_control(
            "cartpole-swingup",
            ("FastRendering", "WideView"),
            frame_skip=4,
            agent={"steps": 1_500_000, "gamma": 0.99},
            steps=250,
            updates=(800, 1000, 1600),
            random=30,
            added=24,
            judged=3,
        ),
        800,
        "return",
        _from_pixels(curl="582", drq="759"),
        "The published agents take 100,000 steps, see 84 x 84 pixels, with shadows and a field of "
        "view of 45 degrees instead of 60, and are trained in the real environment. Ours is the "
        "best of three by validation episodes, and has a frame skip of 4 (CURL: 8).",
        **_DM_PACKAGES,
    ),
    "dmc-cup": Row(
        "dm_control/ball_in_cup-catch-v0, 71,000 steps, agent trained in the dream",
        _dm_control(
            "ball_in_cup-catch",
            ("FastRendering",),
            frame_skip=4,
            agent={"steps": 1_000_000, "gamma": 0.98},
            steps=100,
            updates=(800, 1200, 1400),
            random=60,
            added=40,
            judged=5,
        ),
        900,
        "return",
        _from_pixels(curl="769", drq="913"),
        _DM_DIFFERENCES,
        **_DM_PACKAGES,
    ),
    "dmc-reacher": Row(
        "dm_control/reacher-easy-v0, 81,000 steps, agent trained in the dream",
        _dm_control(
            "reacher-easy",
            ("FastRendering",),
            frame_skip=2,
            agent={"steps": 1_500_000, "gamma": 0.98},
            steps=75,
            updates=(1200, 1800, 1800),
            random=200,
            added=120,
            judged=5,
        ),
        850,
        "return",
        _from_pixels(curl="538", drq="601"),
        _DM_DIFFERENCES,
        **_DM_PACKAGES,
    ),
    "swingup": Row(
        "DoublePendulumPixels-v0, five agents in the dream of each model, each the best of three",
        dream_agent(
            "DoublePendulumPixels-v0",
            {"size": 1500, "epochs": 125, "decoder_epochs": 38},
            {
                **_DREAM_PPO,
                "steps": 600_000,
                "ensemble": _ONE_OF_THREE | {"updates": 3000, "horizon": 8},
                "candidates": {"count": 3},
            },
            agents=5,
        ),
        178,
        "return",
        (),
        "No published results: an environment of this project. PPO on latents of the real one, "
        "instead of the dream, reaches 188.",
    ),
}
"""All rows: name -> row."""
