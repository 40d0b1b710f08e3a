"""Floor 3: derivatives of solutions. The implicit function theorem is written once, in `implicit.py`."""
