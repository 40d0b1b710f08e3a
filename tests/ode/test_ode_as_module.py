"""Layers of differential equations among other modules: two processes, autocast, copies, float32 far from zero."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import implicitdsl as imp

CLOSED = (
    "given x in R^n\nparam W in R^(n, n), b in R^n = normal(0, 1)\n"
    "find z(t) in R^n for t in [0, 1] such that dz/dt = tanh(W z + b) + sin(3 t), z(0) = x"
)
BOUND = "given x in R^n\nfn f: (R^n, R) -> R^n\nfind z(t) in R^n for t in [0, 1] such that dz/dt = f(z, t), z(0) = x"


class Field(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(4, 8), nn.Linear(8, 3)
        self.seen: set[torch.dtype] = set()

    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        hidden = self.inner(torch.cat([z, t.unsqueeze(1)], 1))
        self.seen.add(hidden.dtype)
        return self.outer(torch.tanh(hidden))


def points(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("bound", [False, True], ids=["closed form", "module"])
def test_autocast(bound: bool) -> None:
    """A module's products are of the low precision; states, steps and gradients stay near those of float32."""
    torch.manual_seed(0)
    field = Field()
    layer = imp.compile(BOUND, n=3, f=field) if bound else imp.compile(CLOSED, n=3)
    x = points(5, 3)
    found = []
    for low in (False, True):
        layer.zero_grad()
        field.seen.clear()
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            solution = layer.solve(x)
        y = solution.value
        assert y.dtype == torch.float32
        y.square().sum().backward()
        found.append((y.detach(), *(p.grad.clone() for p in layer.parameters() if p.grad is not None)))
        assert field.seen == (({torch.bfloat16} if low else {torch.float32}) if bound else set())
        assert bool(solution.report.converged.all())
    assert len(found[0]) == 1 + len(list(layer.parameters()))
    for high, rounded in zip(*found, strict=True):
        assert float((high - rounded).norm() / high.norm()) < (0.03 if bound else 1e-6)


def test_copies_of_a_bound_module_are_their_own() -> None:
    """deepcopy and pickle, before and after a call and a backward pass; a step of one leaves the other alone."""
    torch.manual_seed(0)
    layer = imp.compile(BOUND, n=3, f=Field())
    x = points(5, 3)
    y = layer(x)
    y.sum().backward()
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(other(x), y)
        with torch.no_grad():
            for p in other.parameters():
                p.add_(0.1)
        assert not torch.allclose(other(x), y)
        assert torch.equal(layer(x), y)


@pytest.mark.parametrize("start", [0.0, 1e6])
def test_float32_far_from_zero(start: float) -> None:
    """A unit of time at t = 1e6, where float32 counts in sixteenths, with events and gradients."""
    layer = imp.compile("given x in R, t0 in R\nparam k in R = 1\nfind z(t) in R for t in [t0, t0 + 1] until z <= 0.5 "
                        "such that dz/dt = -k z, z(t0) = x\nreturn z(t)")  # fmt: skip
    x = torch.tensor([1.0, 4.0], requires_grad=True)
    y = layer(x, torch.tensor(start))
    assert torch.allclose(y, torch.tensor([0.5, 4 / torch.e]), rtol=0.06 if start else 1e-4)
    layer = imp.compile("given x in R, t0 in R\nparam k in R = 1\nfind z(t) in R for t in [t0, t0 + 1] such that "
                        "dz/dt = -k z^2, z(t0) = x\nusing dopri5")  # fmt: skip
    solution = layer.solve(x, torch.tensor(start))
    assert bool(solution.report.converged.all())
    assert int(solution.report.iterations.max()) < 30
    assert torch.allclose(solution.value, x / (1 + x), rtol=1e-4)
    slope, by_k = torch.autograd.grad(solution.value.sum(), (x, layer.k))
    assert torch.allclose(slope, (1 + x) ** -2, rtol=1e-3)
    assert float(by_k) == pytest.approx(float(-(x**2 / (1 + x) ** 2).sum().detach()), rel=1e-3)


WORKER = f"""
import os
import warnings
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
import implicitdsl as imp

warnings.simplefilter("error", imp.ConvergenceWarning)


class Field(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, z, t):
        return torch.tanh(self.linear(torch.cat([z, t.unsqueeze(1)], 1)))


def model():
    torch.manual_seed(0)
    return nn.Sequential(
        imp.compile({CLOSED!r}, n=3), imp.compile({BOUND!r}, n=3, f=Field()), nn.Linear(3, 1)
    ).double()


def gradients(module, x, y):
    for p in module.parameters():
        p.grad = None
    (module(x).squeeze(-1) - y).square().mean().backward()
    return [p.grad.clone() for p in module.parameters()]


dist.init_process_group("gloo")
rank = dist.get_rank()
assert dist.get_world_size() == 2
generator = torch.Generator().manual_seed(1)
x, y = torch.randn(8, 3, generator=generator).double(), torch.randn(8, generator=generator).double()
parallel, alone, half = DistributedDataParallel(model()), model(), slice(4 * rank, 4 * rank + 4)
for module, mine in ((parallel, True), (alone, False)):
    module.steps = []
    optimiser = torch.optim.SGD(module.parameters(), lr=0.1)
    for _ in range(2):
        module.steps.append(gradients(module, x[half] if mine else x, y[half] if mine else y))
        optimiser.step()
for found, right in zip(sum(parallel.steps, []), sum(alone.steps, []), strict=True):
    assert right.abs().max() > 0
    torch.testing.assert_close(found, right, rtol=1e-8, atol=1e-10)
dist.destroy_process_group()
os.write(1, b"equal on %d\\n" % rank)  # in one piece: both processes write to one pipe
"""


@pytest.mark.slow
def test_two_processes_have_the_gradients_of_one(tmp_path: Path) -> None:
    """Samples keep their own steps, so that halves of a batch have the gradients of the whole."""
    script = tmp_path / "worker.py"
    script.write_text(WORKER, encoding="utf-8")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(script)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert sorted(line for line in done.stdout.splitlines() if "equal" in line) == ["equal on 0", "equal on 1"]
