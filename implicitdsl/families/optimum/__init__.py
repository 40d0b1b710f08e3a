"""Floor 4: optimisation problems."""
