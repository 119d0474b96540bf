"""MLX Manager: finds, downloads, verifies and keeps MLX models from the Hugging Face Hub."""

__version__ = "0.1.0"
