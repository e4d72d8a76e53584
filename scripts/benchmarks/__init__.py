"""The parts of ``scripts/bench``: what is run in turn, what is looked at once, and the tables of both."""
