"""Initial value problems: steps, step-size control, interpolation, events. Knows no language."""
