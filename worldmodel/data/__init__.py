"""Data: collect episodes from a Gymnasium environment, keep them on disk, sample windows."""

from worldmodel.data.agent import Agent
from worldmodel.data.collect import collect, load_or_collect, play_episode
from worldmodel.data.errors import ReplayBufferError
from worldmodel.data.policies import Mixed, Passive, Policy, Random
from worldmodel.data.recipe import Recipe, resolve
from worldmodel.data.replay import ReplayBuffer
from worldmodel.data.rollout import Episode
from worldmodel.data.windows import Windows

__all__ = [
    "Agent",
    "Episode",
    "Mixed",
    "Passive",
    "Policy",
    "Random",
    "Recipe",
    "ReplayBuffer",
    "ReplayBufferError",
    "Windows",
    "collect",
    "load_or_collect",
    "play_episode",
    "resolve",
]
