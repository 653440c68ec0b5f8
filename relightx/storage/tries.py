"""How often this process met a failure of S3 that may pass, and tried again.

Apart from the connections that count it, so that who only reports it does not load boto3.
"""

import os
from collections import Counter

_tried_again: Counter[int] = Counter()


def note_retry() -> None:
    """Something failed and is tried again."""
    _tried_again[os.getpid()] += 1


def retries_of_process() -> int:
    """By this process so far, not by the one that it was forked from."""
    return _tried_again[os.getpid()]
