"""What MLX computes on: the device, and the BLAS of a Linux CPU."""
