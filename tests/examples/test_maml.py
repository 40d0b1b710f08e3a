"""Meta-learning by implicit gradients: ten points tell a new task; the gradient is that of a long inner loop."""

from __future__ import annotations

import runpy
from pathlib import Path

import torch

EXAMPLE = Path(__file__).parent.parent.parent / "examples/maml/train.py"


def test_new_tasks_are_learnt_from_ten_points(tmp_path: Path) -> None:
    picture = tmp_path / "picture.png"
    result = runpy.run_path(str(EXAMPLE))["main"](["--fast", "--out", str(picture)])
    assert result["meta-learned_after"] < 0.4
    assert result["meta-learned_after"] < 0.4 * result["pooled_after"]
    assert result["meta-learned_before"] > 2  # a sinusoid of unknown phase cannot be told without its points
    assert picture.stat().st_size > 10_000


def test_outer_gradient_is_that_of_an_unrolled_inner_loop() -> None:
    example = runpy.run_path(str(EXAMPLE))
    layer = example["network"](0).double()
    some = example["Tasks"](*(t.double() for t in example["tasks"](3, torch.Generator().manual_seed(2))))
    with torch.no_grad():
        for p in layer.parameters():
            p.mul_(0.6)
    layer.lam = torch.tensor(5.0, dtype=torch.float64)  # a strong pull, so that the inner loop below ends
    names = [name for name, _ in layer.named_parameters()]
    found = torch.autograd.grad(example["errors"](layer, some)[0], [layer.get_parameter(n) for n in names])

    def features(u: torch.Tensor) -> torch.Tensor:
        first = torch.tanh(u.unsqueeze(-1) * layer.a + layer.b)
        return torch.tanh(first @ layer.C + layer.d)

    seen = features(some.x)
    size = 2 * torch.linalg.eigvalsh(seen.detach() @ seen.detach().mT).amax() + 2 * layer.lam.detach()
    v = layer.v0.expand(3, -1)
    for _ in range(800):
        slope = 2 * ((seen @ v.unsqueeze(-1)).squeeze(-1) - some.y)
        v = v - ((seen.mT @ slope.unsqueeze(-1)).squeeze(-1) + 2 * layer.lam * (v - layer.v0)) / size
    answers = (features(some.q) @ v.unsqueeze(-1)).squeeze(-1)
    loss = ((answers - some.answers) ** 2).mean()
    for mine, unrolled in zip(found, torch.autograd.grad(loss, [layer.get_parameter(n) for n in names]), strict=True):
        torch.testing.assert_close(mine, unrolled, rtol=1e-6, atol=1e-9)
