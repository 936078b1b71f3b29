"""The commands, by what they are about; `mlx_grpo.cli` puts them together."""
