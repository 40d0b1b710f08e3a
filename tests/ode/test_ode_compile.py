"""`torch.compile(fullgraph=True)` of whole adaptive solves: the numbers and gradients are those of the eager loop."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import implicitdsl as imp
from implicitdsl.solvers.ode import traced

pytestmark = [  # the compiler warns of its own doings
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
D = torch.float64
INDUCTOR, TRACED = "inductor", "aot_eager"  # generating code takes most of the time, tracing shows every graph


@pytest.fixture(autouse=True)
def fresh_compiler() -> None:
    torch._dynamo.reset()
    torch.manual_seed(0)


class Field(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(4, 8, dtype=D), nn.Linear(8, 3, dtype=D)

    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        return self.outer(torch.tanh(self.inner(torch.cat([z, t.unsqueeze(1)], 1))))


def points(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=D, generator=torch.Generator().manual_seed(0)).requires_grad_()


STATE = (
    "given x in R^n\nparam W in R^(n, n)\n"
    "find z(t) in R^n for t in [0, 1] such that dz/dt = tanh(W z) + sin(t), z(0) = x\n{}"
)
ASKED = (
    "given x in R^n, ts in R^k, t0 in R\nparam W in R^(n, n)\n"
    "find z(t) in R^n, l(t) in R for t in [t0, 1] such that "
    "dz/dt = tanh(W z) + sin(t) * x, dl/dt = -div(tanh(W z), z), z(t0) = x, l(t0) = 0\n{}\nreturn z(ts), l(1)"
)
MODULE = (
    "given x in R^n\nfn f: (R^n, R) -> R^n\nfind z(t) in R^n for t in [0, 1] such that dz/dt = f(z, t), z(0) = x\n{}"
)
SPRING = (
    "given q0 in R^n, p0 in R^n\nfind q(t) in R^n, p(t) in R^n for t in [0, 3] such that "
    "dq/dt = p, dp/dt = -sin(q), q(0) = q0, p(0) = p0\nusing {}"
)
VAN_DER_POL = (
    "given mu in R\nfind x(t) in R, v(t) in R for t in [0, 2] such that "
    "dx/dt = v, dv/dt = mu (1 - x^2) v - x, x(0) = 2, v(0) = 0"
)
STIFF = (  # the first trial overflows
    "given x in R^n\nparam W in R^(n, n)\n"
    "find z(t) in R^n for t in [0, 1] such that dz/dt = exp(-W z - 5 z) - exp(W z + 5 z), z(0) = x\n{}"
)
FORCED = (
    "given x in R^n, s in R^k, ts in R^m\nparam W in R^(n, n)\nfind z(t) in R^n for t in [0, 1] such that "
    "dz/dt = tanh(W z) + sign(t - s[0]) * x + sin(t) * sign(t - s[1]), z(0) = x\nusing {}\nreturn z(ts), z(1)"
)
KINKS = (torch.tensor([0.35, 0.6], dtype=D), torch.tensor([0.9, 0.2, 0.6], dtype=D))
TIMES = (torch.tensor([0.9, 0.3, 0.0, 1.2], dtype=D), torch.zeros((), dtype=D))
CASES = {
    "rk4": (STATE.format("using rk4(steps=7)"), (points(4, 3),), False, TRACED),
    "dopri5": (STATE.format("using dopri5"), (points(4, 3),), False, INDUCTOR),
    "ladder": (STATE.format(""), (points(4, 3),), False, TRACED),
    "times": (ASKED.format("using tsit5"), (points(4, 3), *(t.clone().requires_grad_() for t in TIMES)), False, TRACED),
    "landing": (ASKED.format("using dopri8"), (points(4, 3), *TIMES), False, TRACED),
    "rodas5p": (STATE.format("using rodas5p"), (points(4, 3),), False, TRACED),
    "dense output": pytest.param(
        FORCED.format("rodas5p(jump_t=s)"),
        (points(4, 3), *(t.clone().requires_grad_() for t in KINKS)),
        False,
        TRACED,
        marks=pytest.mark.slow,
    ),
    "refused": (STIFF.format("using dopri5(dt0=1)"), (points(4, 3),), False, TRACED),
    "trapezoid": (STATE.format("using trapezoid(steps=5)"), (points(4, 3),), False, TRACED),
    "leapfrog": (SPRING.format("leapfrog(steps=20)"), (points(4, 3), points(4, 3)), False, TRACED),
    "exponential": ("dz/dt = A z", (points(4, 3),), False, TRACED),
    "module": (MODULE.format(""), (points(4, 3),), True, TRACED),
    "kinks": (
        FORCED.format("dopri5(jump_t=s, max_step=0.2, min_step=1e-6)"),
        (points(4, 3), KINKS[0].clone().requires_grad_(), KINKS[1]),
        False,
        TRACED,
    ),
    "kinks and landing": (FORCED.format("kvaerno5(jump_t=s)"), (points(4, 3), *KINKS), False, TRACED),
    "kinks and equal steps": (FORCED.format("rk4(steps=6, jump_t=s)"), (points(4, 3), *KINKS), False, TRACED),
    "stiffness": (VAN_DER_POL, (torch.tensor([1.0, 1000.0], dtype=D, requires_grad=True),), False, TRACED),
}


@pytest.mark.parametrize("text, given, opaque, backend", CASES.values(), ids=CASES.keys())
def test_same_as_eager(text: str, given: tuple[Tensor, ...], opaque: bool, backend: str) -> None:
    bound = {"f": Field()} if opaque else {}
    sizes = {"n": 3} if "R^n" in text or "A z" in text else {}
    sizes |= {"k": 2, "m": 3} if "R^m" in text else {"k": 4} if "R^k" in text else {}
    layer = imp.compile(text, bind={**sizes, **bound}).double()
    compiled = torch.compile(layer, fullgraph=True, backend=backend)
    wanted = [x for x in (*given, *layer.parameters()) if x.requires_grad]
    found = []
    for run in (compiled, layer):
        y = run(*given)
        y = y if isinstance(y, tuple) else (y,)
        total = torch.stack([(v * torch.linspace(1, 2, v.numel(), dtype=D).view_as(v)).sum() for v in y]).sum()
        found.append((*y, *torch.autograd.grad(total, wanted)))
    for mine, theirs in zip(*found, strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-9, atol=1e-10)
    with torch.no_grad():  # nothing is recorded
        again = compiled(*given)
    for mine, theirs in zip(again if isinstance(again, tuple) else (again,), found[1], strict=False):
        assert torch.allclose(mine, theirs, rtol=1e-9, atol=1e-10)


def test_stages_for_which_there_is_no_room_are_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traced, "KEPT", 10 * 3 * (4 * 3 * 2) * 8)  # ten of thirty steps: three stages, states and tanh
    test_same_as_eager(STATE.format("using rk4(steps=30)"), (points(4, 3),), False, TRACED)


def test_failures_are_announced_from_compiled_code() -> None:
    layer = imp.compile("given x in R\nfind z(t) in R for t in [0, 2] such that dz/dt = z^2, z(0) = x\n"
                        "using dopri5, on_failure=nan")  # fmt: skip
    x = torch.tensor([0.1, 1.0, 0.2], dtype=D)
    with pytest.warns(imp.ConvergenceWarning, match=r"1 of 3 samples .* sample 1 stopped at t = 1"):
        y = torch.compile(layer, fullgraph=True, backend=TRACED)(x)
    assert y.isnan().tolist() == [False, True, False]


@pytest.mark.parametrize("using", ["", "using rk4(dt=0.05, jump_t=0.3)"], ids=["ladder", "rk4"])
def test_events_are_part_of_the_graph(using: str) -> None:
    """Balls dropped, thrown from the ground, and one that does not land in time: times, states, gradients, and what is
    asked before and after.
    """
    layer = imp.compile("given h in R, v in R, ts in R^k\nparam g in R = 9.81\nfind q(t) in R for t in [0, 3] "
                        "until q <= 0 or q >= 900 such that d²q/dt² = -g - 0.1 dq/dt * softplus(dq/dt), q(0) = h, "
                        f"dq/dt(0) = v\n{using}\nreturn t, q(t), dq/dt(t), q(ts)", k=2).double()  # fmt: skip
    h = torch.tensor([1.0, 0.0, 5.0, 800.0], dtype=D, requires_grad=True)
    v = torch.tensor([0.0, 8.0, 2.0, 1.0], dtype=D, requires_grad=True)
    ts = torch.tensor([0.2, 2.0], dtype=D)
    found = []
    for run in (torch.compile(layer, fullgraph=True, backend=TRACED), layer):
        y = run(h, v, ts)
        total = torch.stack([(x * torch.linspace(1, 2, x.numel(), dtype=D).view_as(x)).sum() for x in y]).sum()
        found.append((*y, *torch.autograd.grad(total, (h, v, layer.g))))
    assert found[0][0][3] == 3
    for mine, theirs in zip(*found, strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-8, atol=1e-9)
