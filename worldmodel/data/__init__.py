"""Data: collect episodes from a Gymnasium environment, store them on disk, sample windows."""

from worldmodel.data.adapters import make_env, make_vec_env
from worldmodel.data.collect import collect, load_or_collect, play_episode
from worldmodel.data.convert import convert
from worldmodel.data.datasets import Datasets, collect_kwargs, evaluation_set, open_datasets
from worldmodel.data.env_wrappers import StackedFrames
from worldmodel.data.frames import FrameStack
from worldmodel.data.policies import Agent, Mixed, Passive, Policy, Random, resolve_policy
from worldmodel.data.recipe import Recipe, resolve
from worldmodel.data.replay import ReplayBuffer
from worldmodel.data.rollout import Episode
from worldmodel.data.windows import Windows

__all__ = [
    "Agent",
    "Datasets",
    "Episode",
    "FrameStack",
    "Mixed",
    "Passive",
    "Policy",
    "Random",
    "Recipe",
    "ReplayBuffer",
    "StackedFrames",
    "Windows",
    "collect",
    "collect_kwargs",
    "convert",
    "evaluation_set",
    "load_or_collect",
    "make_env",
    "make_vec_env",
    "open_datasets",
    "play_episode",
    "resolve",
    "resolve_policy",
]
