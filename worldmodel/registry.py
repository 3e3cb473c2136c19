"""Open choices: parts chosen by a short name or by ``module:Name``.

A `Registry` maps the short names of one kind of part to ``module:Name`` references, which are
imported on first use. Every built-in is entered this way, and a user's own part needs no entry:
``--set model.encoder=mypackage.nets:MyEncoder`` names it directly, in the notation of Gymnasium's
environment ids. Resolving a reference imports its module; for those that a run names, see
`worldmodel.trust`.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from worldmodel.errors import ConfigError
from worldmodel.user_code import in_user_code

SEARCHED: list[str] = []
"""The working directory, if the command line runs: references may name modules in it."""

_IN_PROCESS: dict[str, Any] = {}
"""Objects that were passed from Python and cannot be imported, such as local functions."""


class Registry:
    """The choices for one kind of part.

    Args:
        kind: what the parts are, for messages, as in ``"encoder"``.
        builtins: short name -> ``module:Name``.
    """

    def __init__(self, kind: str, builtins: Mapping[str, str]) -> None:
        self.kind = kind
        self._references = dict(builtins)

    @property
    def names(self) -> tuple[str, ...]:
        """The short names."""
        return tuple(self._references)

    def register(self, name: str, target: str | Any) -> None:
        """Enter a part under a short name.

        Args:
            name: the short name; an existing entry is replaced.
            target: ``module:Name``, or the object itself.
        """
        self._references[name] = target if isinstance(target, str) else reference(target)

    def check(self, name: str) -> str:
        """Return `name` if it is a short name or looks like ``module:Name``.

        Raises:
            ConfigError: it is neither. Nothing is imported.
        """
        if name in self._references or is_reference(name):
            return name
        raise ConfigError(
            f"unknown {self.kind} {name!r}; expected "
            + (f"one of {', '.join(self.names)}, or module:Name" if self.names else "module:Name")
        )

    def resolve(self, name: str) -> Any:
        """Import the part behind a short name or a ``module:Name``.

        Raises:
            ConfigError: there is no such part.
        """
        target = self._references.get(self.check(name), name)
        return load_reference(target, self.kind)


def reference(target: Any) -> str:
    """Return the ``module:Name`` of a class or function, for a configuration.

    An object that cannot be imported by that name (a local class, a lambda) is kept for the
    current process; another process that reads the configuration cannot load it.
    """
    name = getattr(target, "__qualname__", type(target).__qualname__)
    full = f"{getattr(target, '__module__', type(target).__module__)}:{name}"
    try:
        found = _import(full)
    except (ImportError, AttributeError):
        found = None
    if found is not target:
        if _IN_PROCESS.get(full, target) is not target:
            full = f"{full}.{len(_IN_PROCESS)}"
        _IN_PROCESS[full] = target
    return full


def load_reference(target: str, kind: str = "object") -> Any:
    """Import what a ``module:Name`` stands for.

    Raises:
        ConfigError: the module cannot be imported or has no such name.
    """
    if target in _IN_PROCESS:
        return _IN_PROCESS[target]
    try:
        with in_user_code(f"the import of {target}"):
            return _import(target)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"cannot load the {kind} {target!r} ({error}); expected module:Name of an importable "
            f"module, as in mypackage.parts:my_{kind.replace(' ', '_')}: run the command where the "
            "module is, or set PYTHONPATH"
        ) from error


def import_named(module: str) -> ModuleType:
    """Import a module that a reference names; the command line also looks into its directory.

    That directory is searched from the first such import on, and not before: a run of somebody else
    may bring along modules that libraries look for.
    """
    own = module.partition(".")[0] == "worldmodel"
    if SEARCHED and not own and SEARCHED[0] not in sys.path:
        sys.path.append(SEARCHED[0])
    return importlib.import_module(module)


def _import(target: str) -> Any:
    module, _, name = target.partition(":")
    found: Any = import_named(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found


def is_reference(name: str) -> bool:
    """Check whether a name looks like ``module:Name``."""
    if name in _IN_PROCESS:
        return True
    module, colon, attribute = name.partition(":")
    parts = [*module.split("."), *attribute.split(".")]
    return bool(colon) and all(part.isidentifier() for part in parts)


ENCODERS = Registry(
    "encoder",
    {
        "keypoints": "worldmodel.models.encoders:KeypointEncoder",
        "conv": "worldmodel.models.encoders:ConvEncoder",
        "timm": "worldmodel.models.encoders:TimmEncoder",
        "mlp": "worldmodel.models.encoders:MLPEncoder",
    },
)
"""Encoders by their short names."""
PREDICTORS = Registry(
    "predictor",
    {
        "residual": "worldmodel.models.predictors:ResidualPredictor",
        "direct": "worldmodel.models.predictors:DirectPredictor",
        "identity": "worldmodel.models.predictors:IdentityPredictor",
    },
)
"""Predictors by their short names."""
DECODERS = Registry("decoder", {"patches": "worldmodel.models.heads:PatchDecoder"})
"""Decoders by their short names."""
OBJECTIVES = Registry(
    "objective",
    {
        "vicreg": "worldmodel.objectives:regularized_prediction",
        "sigreg": "worldmodel.objectives:regularized_prediction",
        "variance": "worldmodel.objectives:regularized_prediction",
        "prediction": "worldmodel.objectives:regularized_prediction",
        "inverse": "worldmodel.objectives:InverseDynamics",
    },
)
"""Objectives by their short names."""
POLICIES = Registry(
    "policy",
    {
        "passive": "worldmodel.data.policies:Passive",
        "random": "worldmodel.data.policies:Random",
        "mixed": "worldmodel.data.policies:Mixed",
        "agent": "worldmodel.data.policies:Agent",
        "planner": "worldmodel.planning.policy:Planned",
    },
)
"""Policies that collect data, by their short names."""
PLANNERS = Registry(
    "planner",
    {
        "icem": "worldmodel.planning.planners:icem",
        "cem": "worldmodel.planning.planners:cem",
        "mppi": "worldmodel.planning.planners:MPPI",
    },
)
"""Planners by their short names."""
WRAPPERS = Registry("wrapper", {})
"""Without short names, so every wrapper is a ``module:Name``."""
READOUTS = Registry(
    "state readout",
    {
        "auto": "worldmodel.plugins:StateReadout",
        "state": "worldmodel.plugins:StateReadout",
    },
)
"""``auto`` is the readout of the environment's plug-in, which is `StateReadout` without one."""
