"""Floor 2: batched solvers of F(z; a) = 0. Tensors only; no language, no derivatives of the solution."""
