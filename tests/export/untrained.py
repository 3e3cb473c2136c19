"""Runs that were never trained, made in a second: random weights, but all that a run holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from worldmodel.config import DEFAULT_ENV, build_config
from worldmodel.data.datasets import check_data
from worldmodel.evaluation.probes import fit_mlp_probe
from worldmodel.evaluation_config import Probe
from worldmodel.imagination.domain import domain_of
from worldmodel.models import ModelSpec, WorldModel
from worldmodel.run import Run

TINY = "tiny_env:Tiny-v0"


def untrained_run(folder: Path, **changes) -> Run:
    """Make a run, by default of the pendulum; nested changes of the configuration as in YAML."""
    base = {
        "image_size": 16,
        "output_dir": folder,
        "data": {"dir": folder / "data", "policy": "random", "steps": 12},
        "model": {"latent_dim": 6, "width": 4, "hidden": 32},
    }
    config = build_config(base, changes, preset="smoke")
    run = Run.create(config)
    run.device = "cpu"
    spec = ModelSpec.of(config, *check_data(config))
    torch.manual_seed(0)
    model = WorldModel(spec).eval().requires_grad_(False)
    for part in (model.predictor, model.decoder):
        for weight in [] if part is None else part.parameters():
            weight.add_(0.05 * torch.randn_like(weight))
    model.termination_head.net[-1].bias.sub_(3.0)
    run.save_spec(spec)
    run.save_weights(model)
    starts = torch.randn(64, spec.latent_dim) @ torch.randn(spec.latent_dim, spec.latent_dim)
    run.save_imagination(starts, domain_of(starts, np.arange(len(starts)) % 2 == 0, 0.1))
    if config.env.id == DEFAULT_ENV:
        targets = run.readout(4).targets(np.random.default_rng(0).uniform(-3, 3, (64, 4)))
        run.save_probe(fit_mlp_probe(starts.numpy(), targets, Probe(updates=50)))
    return Run(run.path, device="cpu")
