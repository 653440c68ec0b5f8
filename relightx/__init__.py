"""Train portrait intrinsic decomposition and relighting from multi-lit photographs."""
