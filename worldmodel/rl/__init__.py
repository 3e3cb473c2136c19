"""Reinforcement learning with a world model: agents of Stable-Baselines3 on latents and dreams.

The algorithms are unchanged, and every agent is evaluated in the real environment.
"""

from worldmodel.rl.agents import (
    ALGORITHMS,
    check_algorithm,
    load_agent,
    train_agent,
)
from worldmodel.rl.candidates import train_candidates
from worldmodel.rl.compare import compare_agents, comparison_table
from worldmodel.rl.envs import VIEWS, AgentEnvs
from worldmodel.rl.evaluation import (
    EvalCallback,
    evaluate_policy,
    record_video,
    result_summary,
)
from worldmodel.rl.explorer import Explorer
from worldmodel.rl.guards import PredictorEnsemble, guard
from worldmodel.rl.loop import train_with_rounds
from worldmodel.rl.tune import DREAM_GRID, ranking_table, tune_agent

__all__ = [
    "ALGORITHMS",
    "DREAM_GRID",
    "VIEWS",
    "AgentEnvs",
    "EvalCallback",
    "Explorer",
    "PredictorEnsemble",
    "check_algorithm",
    "compare_agents",
    "comparison_table",
    "evaluate_policy",
    "guard",
    "load_agent",
    "ranking_table",
    "record_video",
    "result_summary",
    "train_agent",
    "train_candidates",
    "train_with_rounds",
    "tune_agent",
]
