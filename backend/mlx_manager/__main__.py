"""``python -m mlx_manager``: the command line."""

from mlx_manager.cli import main

main()
