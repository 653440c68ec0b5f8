"""Which subjects keep their labels: the supervision fractions of the paper's limited setting.

Subjects of a data set are ranked by their name's digest, stirred with a seed; a fraction keeps the
first of them, rounded up. So the 5 % set lies inside the 10 % set, albedo, normals and light follow
one ranking (the same people are the labelled ones), and neither rank, order nor shard can change
it. The index holds the digests, so ten million subjects are ranked in a second.
"""

import math

import numpy as np
from jaxtyping import Bool, UInt64


def labelled_subjects(
    digests: UInt64[np.ndarray, " subjects"], fraction: float, seed: int
) -> Bool[np.ndarray, " subjects"]:
    """True for the subjects that keep a label.

    digests: one number for each subject's name, of all the subjects of one data set.
    """
    # The tolerance keeps 0.1 * 30 at 3, not 4.
    count = math.ceil(fraction * len(digests) - 1e-9)
    if count in (0, len(digests)):
        return np.full(len(digests), count > 0)
    rank = _stirred(digests ^ _stirred(np.array([seed % 2**64], np.uint64)))
    keeps = np.zeros(len(digests), bool)
    keeps[np.argpartition(rank, count - 1)[:count]] = True
    return keeps


def _stirred(values: UInt64[np.ndarray, " n"]) -> UInt64[np.ndarray, " n"]:
    """Splitmix64: every bit of the result depends on every bit given, and none meet."""
    with np.errstate(over="ignore"):
        values = values + np.uint64(0x9E3779B97F4A7C15)
        values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return values ^ (values >> np.uint64(31))
