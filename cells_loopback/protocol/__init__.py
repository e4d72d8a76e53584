"""The protocol's rules as values and pure functions: no network, no disk."""
