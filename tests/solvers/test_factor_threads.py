"""LU of a batch after `torch.set_num_threads`, which breaks torch's own (2.13, MKL) above 128 × 128."""

from __future__ import annotations

import subprocess
import sys

import pytest

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

STIFF = """
import torch
torch.set_num_threads(2)
import implicitdsl as imp
text = ("given x in R^n\\nparam W in R^(n, n)\\nfind z(t) in R^n for t in [0, 0.1] such that "
        "dz/dt = tanh(W z) - 3 z, z(0) = x\\nusing {}")
x = torch.randn(5, 160, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
found = []
for using in ("rk4(steps=20)", "rodas5p(steps=4)", "kvaerno5(steps=4)"):
    layer = imp.compile(text.format(using), n=160).double()
    if found:
        layer.load_state_dict(state)
    state = layer.state_dict()
    y = layer(x)
    found.append((y, *torch.autograd.grad(y.square().sum(), (x, layer.W))))
for other in found[1:]:
    for a, b in zip(found[0], other):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)
"""

FUNCTIONS = """
import torch
torch.set_num_threads(2)
import implicitdsl as imp
text = ("layer F(n):\\n  given A in R^(n, n), b in R^n\\n  "
        "return x = A^-1 b, d = log(det(A)), l = logdet(A)")
layer = imp.compile(text, n=160)
A = torch.randn(5, 160, 160, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) / 160
A = (torch.eye(160, dtype=torch.float64) + A).requires_grad_()
b = torch.ones(5, 160, dtype=torch.float64)
x, d, l = layer(A, b)
right = torch.stack([torch.linalg.slogdet(m.detach())[1] for m in A])
torch.testing.assert_close((A @ x.unsqueeze(-1)).squeeze(-1), b)
torch.testing.assert_close(d, right)
torch.testing.assert_close(l, right)
(gradient,) = torch.autograd.grad(l.sum() + d.sum(), A)
torch.testing.assert_close(gradient, torch.stack([2 * torch.linalg.inv(m.detach()).mT for m in A]))
"""


@pytest.mark.parametrize(
    "program",
    [pytest.param(PROGRAM, id="roots"), pytest.param(STIFF, id="stiff"), pytest.param(FUNCTIONS, id="functions")],
)
def test_matrices_of_a_batch_are_factored_right_on_two_threads(program: str) -> None:
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "ERROR" not in done.stderr + done.stdout
