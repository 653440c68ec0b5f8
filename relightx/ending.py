"""How a run ends that is not done, as whoever started it can tell."""

REQUEUE_FILE = "REQUEUE"
"""There once a run that was asked to stop has its checkpoint."""
STOPPED = 3
"""Exit status of a run that was asked to stop, and can be resumed."""
HUNG = 75
"""Exit status of a process that ended because nothing moved."""
