"""Episodes as users bring them, and tiny trainings on them."""

import h5py
import numpy as np

import worldmodel
from worldmodel.data import ReplayBuffer

SIZE = 16
SETTINGS = {
    "model": {"latent_dim": 8, "width": 4, "hidden": 32},
    "data": {"size": 12, "heldout_size": 8, "validation_size": 8, "steps": 12},
    "evaluation": {"steps": 12, "resamples": 20, "probe": {"updates": 10}},
}
KWARGS = {"size": SIZE, "length": [12, 12], "terminates": True}


def train(tmp_path, **options):
    return worldmodel.train(
        preset="smoke",
        image_size=SIZE,
        batch_size=8,
        settings=SETTINGS,
        data_dir=tmp_path / "data",
        output_dir=tmp_path / "results",
        progress=False,
        **options,
    )


def episodes_of(paths):
    for path in paths:
        with ReplayBuffer.open(path) as buffer:
            for i, length in enumerate(buffer.lengths.tolist()):
                windows = buffer.windows([i], [0], length)
                yield {
                    "frames": windows.frames[0],
                    "actions": windows.actions[0],
                    "rewards": windows.rewards[0],
                    "terminated": bool(buffer.terminated[i]),
                    "states": buffer.states([i], [0], length)[0],
                    "seed": int(buffer.seeds[i]),
                }


def write_rows(path, episodes):
    """The layout of stable-worldmodel: one row per frame, the action leads to the next row."""
    columns = {name: [] for name in ("pixels", "action", "reward", "terminated", "state")}
    lengths, seeds = [], []
    for e in episodes:
        last = np.full((1, *e["actions"].shape[1:]), np.nan)
        columns["pixels"].append(e["frames"])
        columns["action"].append(np.concatenate([e["actions"], last]))
        columns["reward"].append(np.concatenate([[0.0], e["rewards"]]))
        columns["terminated"].append(np.arange(len(e["frames"])) == len(e["actions"]))
        columns["state"].append(e["states"])
        lengths.append(len(e["frames"]))
        seeds.append(e["seed"])
    with h5py.File(path, "w") as file:
        for name, parts in columns.items():
            file[name] = np.concatenate(parts)
        file["ep_len"], file["ep_seed"] = np.array(lengths), np.array(seeds)
        file["ep_offset"] = np.cumsum(lengths) - lengths


def simple_episodes(count=12, steps=5, **changes):
    """Episodes of random images with two actions; `changes` are made to the last one."""
    rng = np.random.default_rng(0)
    made = [
        {
            "frames": rng.integers(0, 256, (steps + 1, SIZE, SIZE, 3), np.uint8),
            "actions": rng.integers(0, 2, steps),
        }
        for _ in range(count)
    ]
    made[-1] |= {name: change(made[-1]) for name, change in changes.items()}
    return made
