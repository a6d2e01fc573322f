"""From what a model returns, and targets, to one score a sample: what gradients are taken of."""

from pnpx.scores.aim import Aim
from pnpx.scores.objective import Objective
from pnpx.scores.outputs import (
    INFERENCE_MODES,
    TASKS,
    InferenceMode,
    ScoreFunction,
    Task,
    check_rows,
    find_output,
    split_copies,
)
from pnpx.scores.targets import Targets, rows_of_targets

__all__ = [
    "INFERENCE_MODES",
    "TASKS",
    "Aim",
    "InferenceMode",
    "Objective",
    "ScoreFunction",
    "Targets",
    "Task",
    "check_rows",
    "find_output",
    "rows_of_targets",
    "split_copies",
]
