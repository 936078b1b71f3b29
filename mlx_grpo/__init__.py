"""GRPO in MLX: reinforcement learning for small language models on one Mac."""

from mlx_grpo.cpu import keep_freed_pages, load_openblas, on_linux_cpu

__version__ = "0.1.0"

BLAS: str | None = None
"""Path of the OpenBLAS loaded in place of MLX's reference BLAS; None where none was needed or found."""

if on_linux_cpu():
    BLAS = load_openblas()
    keep_freed_pages()
