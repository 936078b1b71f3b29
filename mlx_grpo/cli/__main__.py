"""`python -m mlx_grpo.cli`: the command line without its script."""

from mlx_grpo.cli.main import main

main()
