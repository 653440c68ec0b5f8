"""Sweeps: the same training with other loss weights, less supervision, other data, compared."""
