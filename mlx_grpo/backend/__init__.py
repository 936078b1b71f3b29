"""The device that MLX computes on, and the BLAS of a Linux CPU."""

from typing import Literal, get_args

DtypeName = Literal["float32", "float16", "bfloat16"]
DTYPE_NAMES: tuple[str, ...] = get_args(DtypeName)
"""The dtypes of weights, by the names that MLX and PyTorch give them."""
