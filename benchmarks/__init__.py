"""MLX Manager side by side with what people use today, against a hub on this machine: `make bench`."""
