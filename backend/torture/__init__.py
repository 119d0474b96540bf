"""The server, killed over and over amid its work, and proof of what is left: `make torture`."""
