"""LU of a batch after `torch.set_num_threads`, which breaks torch's own (2.13, MKL) above 128 × 128."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import torch
torch.set_num_threads(2)
import implicitdsl as imp
layer = imp.compile("given A in R^(n, n), b in R^n; find z in R^n such that 3 z = A z + b")
A = torch.randn(5, 160, 160, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) / 160**0.5
A.requires_grad_()
b = torch.ones(5, 160, dtype=torch.float64)
z = layer(A, b)
z.sum().backward()
M = 3 * torch.eye(160, dtype=torch.float64) - A.detach()
u = [torch.linalg.solve(m.mT, torch.ones(160, 1, dtype=torch.float64)) for m in M]
torch.testing.assert_close(M @ z.detach().unsqueeze(-1), b.unsqueeze(-1))
torch.testing.assert_close(A.grad, torch.stack([v * x for v, x in zip(u, z.detach())]))
"""


def test_matrices_of_a_batch_are_factored_right_on_two_threads() -> None:
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", PROGRAM], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "ERROR" not in done.stderr + done.stdout
