"""Solvers of optimisation problems given by tensors. One method a file."""
