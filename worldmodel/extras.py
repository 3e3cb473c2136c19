"""The optional libraries: which extra each belongs to, and how to install the missing ones."""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from typing import Any

from worldmodel.errors import MissingLibraryError

EXTRAS: dict[str, dict[str, str]] = {
    "data": {"h5py": "h5py>=3.8", "minari": "minari>=0.5.4", "pyarrow": "pyarrow>=17"},
    "ray": {"ray": "ray>=2.40"},
    "onnx": {
        "onnx": "onnx>=1.17",
        "onnxruntime": "onnxruntime>=1.20",
        "onnxscript": "onnxscript>=0.5.4",
    },
    "hub": {"huggingface_hub": "huggingface_hub>=1.0,<3", "safetensors": "safetensors>=0.4"},
    "wandb": {"wandb": "wandb>=0.17"},
    "trackio": {"trackio": "trackio>=0.20"},
    "timm": {"timm": "timm>=1.0"},
}
"""Name of an extra in pyproject.toml -> module -> requirement; a test compares them."""


def require(module: str, extra: str) -> Any:
    """Import an optional library.

    Args:
        module: name of the module, e.g. ``pyarrow.parquet``.
        extra: a key of `EXTRAS` that brings it.

    Raises:
        MissingLibraryError: If it is not installed.
    """
    require_installed(module.partition(".")[0], extra)
    return importlib.import_module(module)


def require_installed(library: str, extra: str) -> None:
    """Check that an optional library is installed, without importing it.

    Raises:
        MissingLibraryError: If it is not; the message has the command that installs the extra.
    """
    if not is_installed(library):
        raise MissingLibraryError(
            f"{library} is not installed; install it with: {install_command(extra)}", name=library
        )


def is_installed(library: str) -> bool:
    """Whether a library can be imported; a directory of the same name, as of wandb, is not one."""
    spec = find_spec(library)
    return spec is not None and spec.origin is not None


def install_command(extra: str) -> str:
    """Return the command that installs an extra.

    It names the libraries and not ``worldmodel[extra]``, so that it works for a clone and a wheel
    alike, and in every shell.
    """
    pip = "pip" if is_installed("pip") else "uv pip"  # `uv sync` makes environments without pip
    return f"{pip} install " + " ".join(f'"{wanted}"' for wanted in EXTRAS[extra].values())
