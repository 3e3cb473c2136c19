"""The layout that CONTRIBUTING.md describes holds: no module imports one from below it."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1] / "worldmodel"

LAYERS = [
    ("errors", "config_errors", "extras", "files", "hub", "keywords", "registry"),
    ("callbacks",),
    ("plugins", "hyperparameters", "agent_config", "evaluation_config", "config"),
    ("data",),
    ("models",),
    ("accelerator", "device_buffer", "batches", "prefetch", "latents", "objectives", "optim"),
    ("phases",),
    ("run_directory", "run"),
    ("pendulum", "imagination"),
    ("evaluation",),
    ("planning",),
    ("viz",),
    ("export",),
    ("model_card", "publish"),
    ("trackers", "rl", "training", "terminal"),
    ("options", "sweeps", "installation"),
    ("acting_commands", "agent_commands", "data_commands", "sharing_commands", "sweep_commands"),
    ("cli",),
]
"""Modules and packages, those that import nothing else first."""

RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}


def top_level_imports(path):
    """Modules that are imported when `path` is, without those for type checking."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("worldmodel."):
            yield node.module.split(".")[1]


def test_imports_point_upwards():
    wrong = []
    for path in ROOT.rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[0] in RANK:
            for target in top_level_imports(path):
                if RANK.get(target, -1) > RANK[parts[0]]:
                    wrong.append(f"{'.'.join(parts)} imports {target}")
    assert wrong == []


def test_no_file_is_longer_than_400_lines():
    files = [*ROOT.rglob("*.py"), ROOT.parent / "cli.py"]
    long = {p.name: n for p in files if (n := len(p.read_text().splitlines())) > 400}
    assert long == {}
