"""What the tests of sweeps share."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from tiny_sweeps import write_sweep


@pytest.fixture
def write(tiny_shards: Path, tmp_path: Path) -> Callable[..., Path]:
    """write(steps, **changed): the file of a sweep of tiny trainings."""
    return partial(write_sweep, tmp_path, tiny_shards)
