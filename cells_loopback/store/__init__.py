"""The disk: where sessions lie, how they are read, replaced as a whole, and locked."""
