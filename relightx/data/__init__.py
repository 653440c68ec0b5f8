"""From shards to batches: order -> read -> fit -> augment -> collate."""

from relightx.data.evaluation import evaluation_batches
from relightx.data.loader import TrainingBatches, open_splits, training_batches, whole_reader
from relightx.settings.data import DataConfig

__all__ = [
    "DataConfig",
    "TrainingBatches",
    "evaluation_batches",
    "open_splits",
    "training_batches",
    "whole_reader",
]
