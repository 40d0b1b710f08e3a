"""Floor 3: from the IR to readable PyTorch source, the operations that source calls, and the module that hosts it."""
