"""Imagination: the latent predictor as something to act in."""

from worldmodel.imagination.domain import Domain, fit_domain, start_latents
from worldmodel.imagination.env import LatentEnv
from worldmodel.imagination.observation import LatentObservation, VectorLatentObservation
from worldmodel.imagination.store import load_dream, save_dream
from worldmodel.imagination.vector import LatentVectorEnv

__all__ = [
    "Domain",
    "LatentEnv",
    "LatentObservation",
    "LatentVectorEnv",
    "VectorLatentObservation",
    "fit_domain",
    "load_dream",
    "save_dream",
    "start_latents",
]
