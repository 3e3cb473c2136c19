"""Measure how a model generalizes to motions with more energy than its training data.

    python benchmarks/beyond.py RUN [RUN ...]

Starts passive double pendulums whose energies, in bands, are multiples of the maximum in the
training data. Prints a Markdown table of means over the runs. For each band it has the median angle
error of the open-loop forecast in rad, the fractions of true observations and of imagined latents
that are out of distribution, and the median distance of true observations from the mean of the
training data, relative to the radius of the domain.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from machine import describe_machine

from worldmodel import Run
from worldmodel.data.datasets import SEEDS
from worldmodel.evaluation.forecast import angle_errors, open_loop
from worldmodel.plugins import Energy

BANDS = ((0.0, 0.5), (0.5, 1.0), (1.0, 1.25), (1.25, 1.5), (1.5, 2.0))
"""Bounds of the energy above rest, relative to the maximum in the training data."""

EPISODES = 256
STEPS = 40
REPORTED = (0, 5, 10, 20, 40)
IMAGINED = 20


def starts(energy: Energy, low: float, high: float, seed: int) -> np.ndarray:
    """Draw states with energies uniform between two bounds.

    Args:
        energy: Maps states (N, 4) to energies (N,) in J.
        low: Lower bound in J.
        high: Upper bound in J.
        seed: Random seed.

    Returns:
        States, (EPISODES, 4). Angles are uniform where the potential energy is low enough.
    """
    rng = np.random.default_rng(seed)
    states: list[np.ndarray] = []
    for total in rng.uniform(low, high, EPISODES):
        potential = np.inf
        while potential >= total:
            state = np.append(rng.uniform(-np.pi, np.pi, 2), rng.standard_normal(2))
            potential, current = energy(np.stack((state * (1, 1, 0, 0), state)))
        state[2:] *= np.sqrt((total - potential) / (current - potential))
        states.append(state)
    return np.stack(states)


def simulate(run: Run, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Simulate passive pendulums in the environment of a run.

    Args:
        run: The run.
        states: Start states, (E, 4).

    Returns:
        Frames (E, L, H, W, C) uint8 and states (E, L, 4) float64, with L = STEPS + 2.
    """
    newest = run.model.frames.newest
    envs = run.make_vec_env(len(states), **run.config.data.env_kwargs)
    observation, info = envs.reset(seed=0, options={"state": states})
    frames, true = [newest(observation)], [info["state"]]
    no_torque = np.zeros(envs.action_space.shape, np.float32)
    for _ in range(STEPS + 1):
        observation, *_, info = envs.step(no_torque)
        frames.append(newest(observation))
        true.append(info["state"])
    envs.close()
    return np.stack(frames, 1), np.stack(true, 1)


def evaluate_band(run: Run, energy: Energy, low: float, high: float) -> list[float]:
    """Evaluate a model on energies between two bounds in J.

    Returns:
        Errors at `REPORTED` steps in rad, the fractions of true observations and of latents
        imagined `IMAGINED` steps ahead that are out of distribution, and the relative distance.
    """
    wm, probe = run.model, run.probe
    if probe is None:
        raise SystemExit(f"{run.path} has no probe of angles; run `worldmodel evaluate {run.path}`")
    frames, true = simulate(run, starts(energy, low, high, SEEDS["heldout"].start))
    first = wm.frames.first
    actions = np.zeros((EPISODES, frames.shape[1] - 1, wm.spec.actions.dim), np.float32)
    imagined = open_loop(wm, frames, actions)
    times = range(first, first + STEPS + 1)
    observed = torch.cat([wm.encode(wm.frames.observe(frames, t)) for t in times])
    readout = run.readout(true.shape[-1])

    def error(k: int) -> float:
        predicted = readout.angles(probe.predict(imagined[k].cpu().numpy()))
        return float(np.median(angle_errors(predicted, readout.true_angles(true[:, first + k]))))

    domain = run.domain
    outside = [domain.outside(z).float().mean().item() for z in (observed, imagined[IMAGINED])]
    distance = float(domain.distance(observed).median()) / float(domain.radius)
    return [*map(error, REPORTED), *outside, distance]


def main() -> None:
    """Evaluate all runs and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+", help="run directories")
    options = parser.parse_args()
    print(describe_machine(), file=sys.stderr)
    rows: dict[tuple[float, float], list[list[float]]] = {bounds: [] for bounds in BANDS}
    for path in options.runs:
        run = Run(path, "cpu")
        energy = run.plugin.energy
        if energy is None:
            raise SystemExit(f"{path} was not trained on a double pendulum: no energy is known")
        with run.datasets() as data:
            episodes = np.arange(len(data.train))
            maximum = energy(data.train.states(episodes, 0 * episodes, 1)[:, 0]).max()
        for low, high in BANDS:
            rows[low, high].append(evaluate_band(run, energy, low * maximum, high * maximum))
    print("| energy | " + " | ".join(f"k = {k}" for k in REPORTED), end=" | ")
    print(f"true outside | imagined outside at k = {IMAGINED} | distance / radius |")
    print("| --- " * (len(REPORTED) + 4) + "|")
    for (low, high), figures in rows.items():
        *errors, observed, imagined, distance = np.mean(figures, axis=0)
        cells = [f"{low:g} to {high:g}", *(f"{e:.3f}" for e in errors)]
        print(f"| {' | '.join(cells)} | {observed:.1%} | {imagined:.1%} | {distance:.2f} |")


if __name__ == "__main__":
    main()
