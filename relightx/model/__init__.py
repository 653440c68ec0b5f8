"""The joint model: one portrait in; albedo, normal and light out."""

from relightx.model.network import IntrinsicNet, ModelConfig

__all__ = ["IntrinsicNet", "ModelConfig"]
