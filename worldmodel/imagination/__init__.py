"""Imagination: the latent predictor as something to act in."""

from worldmodel.imagination.domain import Domain, fit_domain
from worldmodel.imagination.env import LatentEnv
from worldmodel.imagination.observation import LatentObservation, VectorLatentObservation
from worldmodel.imagination.optimizers import CEM, MPPI, icem
from worldmodel.imagination.planning import PlanningPolicy, imagined_return, nearness
from worldmodel.imagination.sb3 import SB3VecEnv
from worldmodel.imagination.starts import reset_latents, start_latents
from worldmodel.imagination.store import load_dream, save_dream
from worldmodel.imagination.vector import LatentVectorEnv

__all__ = [
    "CEM",
    "MPPI",
    "Domain",
    "LatentEnv",
    "LatentObservation",
    "LatentVectorEnv",
    "PlanningPolicy",
    "SB3VecEnv",
    "VectorLatentObservation",
    "fit_domain",
    "icem",
    "imagined_return",
    "load_dream",
    "nearness",
    "reset_latents",
    "save_dream",
    "start_latents",
]
