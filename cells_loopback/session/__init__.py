"""Stay logged in: a valid token now, renewed once by whoever comes first."""
