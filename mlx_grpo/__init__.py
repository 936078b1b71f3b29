"""GRPO in MLX: reinforcement learning for small language models on one Mac."""

from typing import TYPE_CHECKING

from mlx_grpo.backend.openblas import prepare_linux_cpu

if TYPE_CHECKING:
    from mlx_grpo.ranking.ranker import Ranker as Ranker

__version__ = "0.2.0"

prepare_linux_cpu()  # a BLAS replaces MLX's own only if it is loaded before `mlx.core`


def __getattr__(name: str) -> object:
    # Loaded on demand: `Ranker` imports MLX, which `mlx-grpo --help` and the PyTorch evaluation do not need.
    if name == "Ranker":
        from mlx_grpo.ranking.ranker import Ranker

        return Ranker
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
