"""The local step, fast: a model whose parameters are one vector."""
