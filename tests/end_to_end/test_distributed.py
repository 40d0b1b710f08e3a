"""Data-parallel training: two processes under torchrun have the gradients of one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

WORKER = '''
import os
import sys
import warnings
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
import implicitdsl as imp

warnings.simplefilter("error", imp.ConvergenceWarning)
DEQ = """layer Deq(n, m):
  given x in R^m
  param W in SpectralBall(n, 0.9)
        U in R^(n, m)
        b in R^n
  find z in R^n such that z = tanh(W z + U x + b)
"""
CELL = """layer Cell(n):
  given x in R^n
  fn f: (R^n, R^n) -> R^n
  find z in R^n such that z = f(z, x)
"""


class Step(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(5, 5)
        nn.init.orthogonal_(self.linear.weight, 0.6)

    def forward(self, z, x):
        return torch.tanh(self.linear(z) + x)


def model():
    torch.manual_seed(0)
    return nn.Sequential(imp.compile(DEQ, n=5, m=3), imp.compile(CELL, n=5, f=Step()), nn.Linear(5, 1)).double()


def gradients(module, x, y):
    for p in module.parameters():
        p.grad = None
    (module(x).squeeze(-1) - y).square().mean().backward()
    return [p.grad.clone() for p in module.parameters()]


dist.init_process_group("gloo")
rank, world = dist.get_rank(), dist.get_world_size()
assert world == 2
generator = torch.Generator().manual_seed(1)
x, y = torch.randn(8, 3, generator=generator).double(), torch.randn(8, generator=generator).double()
alone = gradients(model(), x, y)
parallel = DistributedDataParallel(model())
half = slice(4 * rank, 4 * rank + 4)
optimiser = torch.optim.SGD(parallel.parameters(), lr=0.1)
for found, right in zip(gradients(parallel, x[half], y[half]), alone, strict=True):
    assert right.abs().max() > 0
    torch.testing.assert_close(found, right, rtol=1e-9, atol=1e-11)
optimiser.step()
reference = model()
optimiser = torch.optim.SGD(reference.parameters(), lr=0.1)
gradients(reference, x, y)
optimiser.step()
for found, right in zip(gradients(parallel, x[half], y[half]), gradients(reference, x, y), strict=True):
    torch.testing.assert_close(found, right, rtol=1e-9, atol=1e-11)
dist.destroy_process_group()
os.write(1, b"equal on %d\\n" % rank)  # in one piece: both processes write to one pipe
'''


@pytest.mark.slow
def test_two_processes_have_the_gradients_of_one(tmp_path: Path) -> None:
    script = tmp_path / "worker.py"
    script.write_text(WORKER, encoding="utf-8")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(script)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert sorted(line for line in done.stdout.splitlines() if "equal" in line) == ["equal on 0", "equal on 1"]
