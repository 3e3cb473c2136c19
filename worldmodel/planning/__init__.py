"""Planning in latent space: optimizers, model predictive control, goals, and episodes."""

from worldmodel.models import imagined_return
from worldmodel.planning.episodes import PlannedEpisode, plan
from worldmodel.planning.goal_reaching import reach_goals
from worldmodel.planning.goal_tasks import GoalTask, draw_tasks
from worldmodel.planning.goals import Goal, StepOutcome, choose_goal
from worldmodel.planning.planners import (
    CEM,
    MPPI,
    Search,
    TrajectoryOptimizer,
    cem,
    icem,
    make_planner,
)
from worldmodel.planning.policy import (
    Planned,
    PlanningPolicy,
    PlanObjective,
    goal_distance,
    planner_of,
)

__all__ = [
    "CEM",
    "MPPI",
    "Goal",
    "GoalTask",
    "PlanObjective",
    "Planned",
    "PlannedEpisode",
    "PlanningPolicy",
    "Search",
    "StepOutcome",
    "TrajectoryOptimizer",
    "cem",
    "choose_goal",
    "draw_tasks",
    "goal_distance",
    "icem",
    "imagined_return",
    "make_planner",
    "plan",
    "planner_of",
    "reach_goals",
]
