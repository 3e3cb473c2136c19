"""Imagined environments, rollouts and planning against the model evaluations that limit them."""

from __future__ import annotations

from collections.abc import Iterator

import gymnasium as gym
import numpy as np
import torch

from benchmarks.speed.table import Context, Functions, Row, duration, published, rate
from worldmodel import PlanningPolicy
from worldmodel.models import unroll
from worldmodel.planning import CEM, imagined_return

LEWM_ROLLOUT = 610
"""Steps/s of LeWM in stable-worldmodel 0.1.1 on two cores, 1,024 candidates."""


def dream(context: Context) -> Iterator[Row]:
    """Time steps of imagined environments, of the bare networks, and of real environments."""
    run, wm = context.run, context.run.model
    batch, steps = context.size(1024, 8), context.size(50, 2)
    one = gym.make("worldmodel/Latent-v0", run=run)
    many = gym.make_vec("worldmodel/Latent-v0", num_envs=batch, run=run)
    sizes = {"image_size": run.config.image_size, "frame_stack": run.config.frame_stack}
    real = gym.make_vec("DoublePendulumPixels-v0", num_envs=batch, **sizes)
    for env in (one, many, real):
        env.reset(seed=0)
    action = one.action_space.sample()
    actions = np.stack([action] * batch)

    def single() -> None:
        for _ in range(steps):
            *_, terminated, truncated, _ = one.step(action)
            if terminated or truncated:
                one.reset()

    def batched() -> None:
        for _ in range(steps):
            many.step(actions)

    @torch.no_grad()
    def bare() -> None:
        z = many.unwrapped.latents
        vectors = wm.action_vector(actions)
        for _ in range(steps):
            z_next = wm.predictor(z, vectors)
            wm.reward_head(z, vectors, z_next)
            wm.termination_head(z, vectors, z_next).sigmoid()
            z = z_next

    functions: Functions = {"single": single, "batched": batched, "bare": bare}
    functions["real"] = lambda: wm.encode(real.step(actions)[0])
    times = context.measure(functions)
    yield duration("dream", "step of 1 imagined environment", times["single"], count=steps)
    work, count = f"{batch} imagined environments", batch * steps
    alone = ("predictor and heads alone", times["bare"])
    yield rate("dream", work, times["batched"], count, "steps/s", *alone)
    peer = (f"{batch} real environments and the encoder", times["real"], batch)
    yield rate("dream", work, times["batched"], count, "steps/s", *peer)


def rollout(context: Context) -> Iterator[Row]:
    """Time an open-loop rollout of many candidates, and the bare predictor."""
    wm = context.run.model
    batch, steps = context.size(1024, 8), context.size(50, 2)
    z = torch.zeros(batch, wm.spec.latent_dim, device=wm.device)
    sequence = torch.zeros(steps, batch, wm.spec.actions.dim, device=wm.device)

    @torch.no_grad()
    def bare() -> None:
        latent = z
        for actions in sequence:
            latent = wm.predictor(latent, actions)

    times = context.measure({"rollout": lambda: wm.rollout(z, sequence), "bare": bare})
    work, count = f"rollout of {batch} candidates", batch * steps
    alone = ("predictor alone", times["bare"])
    row = rate("rollout", work, times["rollout"], count, "steps/s", *alone)
    yield row
    yield published(row, "LeWM in stable-worldmodel 0.1.1", LEWM_ROLLOUT)


def planning(context: Context) -> Iterator[Row]:
    """Time one decision of CEM, and the model evaluations that it needs."""
    wm = context.run.model
    samples, iterations, horizon = context.size(300, 40), context.size(5, 1), context.size(10, 2)
    policy = PlanningPolicy(wm, optimizer=CEM(samples, iterations), horizon=horizon)
    z = torch.zeros(1, wm.spec.latent_dim, device=wm.device)
    first = z.expand(samples, -1)
    actions = torch.zeros(horizon, samples, wm.spec.actions.dim, device=wm.device)

    @torch.no_grad()
    def evaluations() -> None:
        for _ in range(iterations):
            latents = torch.cat([first[None], unroll(wm.predictor, first, actions)])
            imagined_return(wm, latents, actions)

    functions: Functions = {"decision": lambda: policy.plan(z), "evaluations": evaluations}
    times = context.measure(functions)
    work = f"decision of CEM, {samples} samples x {iterations} iterations x horizon {horizon}"
    limit = "its model evaluations alone"
    yield duration("planning", work, times["decision"], limit, times["evaluations"])
