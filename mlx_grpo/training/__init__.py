"""Training a policy: the loop, its steps, checkpoints and metrics."""
