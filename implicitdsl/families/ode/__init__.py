"""Floor 4: differential equations in time."""
