"""Floor 4: one package a sentence: what it may be solved by, and how a plan of it becomes PyTorch."""
