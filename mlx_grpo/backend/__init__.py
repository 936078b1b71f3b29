"""The device that MLX computes on, and the BLAS of a Linux CPU."""
