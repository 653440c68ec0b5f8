"""The processes of a run: how they share one model's training, stop together, and are watched."""

from relightx.backend.agree import program, refuse_differences
from relightx.backend.backend import Backend
from relightx.backend.precision import choose_precision, layout_for_training
from relightx.backend.stop import Stop
from relightx.backend.watch import Watch

__all__ = [
    "Backend",
    "Stop",
    "Watch",
    "choose_precision",
    "layout_for_training",
    "program",
    "refuse_differences",
]
