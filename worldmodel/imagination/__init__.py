"""Imagined episodes: the latent predictor as Gymnasium environments."""

from worldmodel.imagination.domain import (
    Domain,
    domain_of,
    fit_domain,
    reset_latents,
    start_latents,
)
from worldmodel.imagination.env import LatentEnv
from worldmodel.imagination.vector import LatentVectorEnv
from worldmodel.imagination.wrappers import LatentObservation, SB3VecEnv, VectorLatentObservation

__all__ = [
    "Domain",
    "LatentEnv",
    "LatentObservation",
    "LatentVectorEnv",
    "SB3VecEnv",
    "VectorLatentObservation",
    "domain_of",
    "fit_domain",
    "reset_latents",
    "start_latents",
]
