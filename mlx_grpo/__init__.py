"""GRPO in MLX: reinforcement learning for small language models on one Mac."""

from typing import TYPE_CHECKING

from mlx_grpo.backend.openblas import keep_freed_pages, load_openblas, on_linux_cpu

if TYPE_CHECKING:
    from mlx_grpo.ranking.ranker import Ranker as Ranker

__version__ = "0.1.0"

BLAS: str | None = None
"""Path of the OpenBLAS loaded in place of MLX's reference BLAS; None where none was needed or found."""

if on_linux_cpu():
    BLAS = load_openblas()
    keep_freed_pages()


def __getattr__(name: str) -> object:
    # On demand: `Ranker` brings MLX with it, which `mlx-grpo --help` and the PyTorch side do without.
    if name == "Ranker":
        from mlx_grpo.ranking.ranker import Ranker

        return Ranker
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
