"""GRPO in MLX: reinforcement learning for small language models on one Mac."""

from mlx_grpo.blas import load_openblas, needs_openblas

__version__ = "0.1.0"

BLAS = load_openblas() if needs_openblas() else None
"""Path of the OpenBLAS loaded in place of MLX's reference BLAS; None where none was needed or found."""
