"""Planning in latent space: optimizers, model predictive control, goals, and episodes."""

from worldmodel.planning.episodes import PlannedEpisode, plan
from worldmodel.planning.goals import Goal, choose_goal
from worldmodel.planning.optimizers import CEM, MPPI, Optimizer, Search, icem, make_optimizer
from worldmodel.planning.policy import (
    Objective,
    PlannerPolicy,
    PlanningPolicy,
    goal_distance,
    imagined_return,
    planner_of,
)

__all__ = [
    "CEM",
    "MPPI",
    "Goal",
    "Objective",
    "Optimizer",
    "PlannedEpisode",
    "PlannerPolicy",
    "PlanningPolicy",
    "Search",
    "choose_goal",
    "goal_distance",
    "icem",
    "imagined_return",
    "make_optimizer",
    "plan",
    "planner_of",
]
