"""Budgets of the fuzz tests: a few inputs each in CI, and many with ``make fuzz``."""

import os

from hypothesis import HealthCheck, settings

_ALL = list(HealthCheck)
settings.register_profile(
    "ci", max_examples=25, derandomize=True, deadline=None, suppress_health_check=_ALL
)
settings.register_profile(
    "fuzz",
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "2000")),
    deadline=None,
    suppress_health_check=_ALL,
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))
