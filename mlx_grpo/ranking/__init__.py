"""`mlx-grpo rank`: a pool of candidates in, a ranked list with reasons out."""
