"""Imagination: the latent predictor as something to act in."""

from worldmodel.imagination.domain import Domain, fit_domain

__all__ = ["Domain", "fit_domain"]
