"""From shards to batches: order -> read -> fit -> augment -> collate."""

from relightx.data.loader import DataConfig, evaluation_batches, training_batches

__all__ = ["DataConfig", "evaluation_batches", "training_batches"]
