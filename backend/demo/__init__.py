"""MLX Manager against a hub on this machine: everything can be tried with no network and no account."""
