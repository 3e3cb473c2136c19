"""A run from an environment and the episodes that it used, made once for all tests of own data."""

import pytest
from own_episodes import KWARGS, SIZE, train
from tiny_env import TinyEnv

from worldmodel.data import collect


@pytest.fixture(scope="session")
def collected(tmp_path_factory):
    """A run from the environment, and the episodes that it used, as buffers."""
    folder = tmp_path_factory.mktemp("collected")
    run = train(folder, env=TinyEnv, policy="random", env_kwargs=KWARGS)
    paths = []
    for name, seeds in {
        "train": range(12),
        "validation": range(10_000, 10_008),
        "heldout": range(20_000, 20_008),
    }.items():
        paths.append(folder / name)
        collect(
            "tiny_env:TinyEnv",
            paths[-1],
            episodes=len(seeds),
            seeds=seeds,
            steps=12,
            policy="random",
            env_kwargs=KWARGS,
            image_size=SIZE,
        ).close()
    return run, paths
