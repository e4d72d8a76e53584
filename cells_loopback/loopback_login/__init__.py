"""The login, from a typed address to a session on the disk; `flow` tells it in order."""
