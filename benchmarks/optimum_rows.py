"""The optimisation rows: data, our spec, the peers' spellings, and the exact gradient of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import cvxpy as cp
import numpy as np
import torch
from torch import Tensor

import implicitdsl as imp

from .optimum_exact import gradients, solved
from .optimum_peers import Solve, both, cvxpylayers, qplayer, qpth

D = torch.float64


@dataclass(frozen=True)
class Row:
    """`data` are what is differentiated; solvers map them to points (B, n). `exact` is the flat cotangent of all of
    `data` for Σ weight · point; `violation` is how far a point is outside; `off` our largest error that passes.

    A peer may take other data: `forms` maps its name to those, and to the share of `exact` that they have in common.
    """

    name: str
    data: tuple[Tensor, ...]
    ours: Solve
    peers: dict[str, Solve]
    exact: Tensor
    weight: Tensor
    violation: Callable[[Tensor], float]
    floor: float
    aim: float
    off: float
    shared: tuple[int, ...] = ()  # data that every peer takes as they are; the others are not compared
    roots: dict[str, tuple[Tensor, ...]] = field(default_factory=dict)


def seeded(*numbers: int) -> None:
    torch.manual_seed(sum(numbers))
    np.random.seed(sum(numbers))


def ramp(*shape: int) -> Tensor:
    return torch.linspace(0.5, 1.5, int(np.prod(shape)), dtype=D).reshape(shape)


def compiled(text: str, **sizes: Any) -> Any:
    return imp.compile(text, **sizes).double()


def outside(*parts: Tensor) -> float:
    return max(float(p.max()) for p in parts if p.numel())


# -- quadratic programs ------------------------------------------------------------------------------------------------

DENSE = """layer Dense(n, m):
  given Q in PSD(n), p in R^n, G in R^(m, n), h in R^m
  argmin_{z in R^n} 1/2 z^T Q z + p^T z subject to G z <= h
"""


def dense(n: int, m: int, batch: int, floor: float, aim: float) -> Row:
    seeded(n, m, batch)
    L = torch.randn(batch, n, n, dtype=D) / n**0.5
    Q, p, G = L @ L.mT + 0.1 * torch.eye(n, dtype=D), torch.randn(batch, n, dtype=D), torch.randn(batch, m, n, dtype=D)
    h = (G @ torch.randn(batch, n, 1, dtype=D)).squeeze(-1) + torch.rand(batch, m, dtype=D)
    x, S, P = cp.Variable(n), cp.Parameter((n, n)), cp.Parameter((n, n), PSD=True)
    q, M, r = cp.Parameter(n), cp.Parameter((m, n)), cp.Parameter(m)
    rooted = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(S @ x) + q @ x), [M @ x <= r])
    formed = cp.Problem(cp.Minimize(0.5 * cp.quad_form(x, P) + q @ x), [M @ x <= r])
    exact = gradients(
        rooted, x, (S, q, M, r), rooted.constraints,
        lambda z, S, p, G, h: 0.5 * (S @ z) @ (S @ z) + p @ z, lambda z, S, p, G, h: G @ z - h,
        (torch.linalg.cholesky(Q).mT.contiguous(), p, G, h), weight := ramp(n),
    )  # fmt: skip
    root = torch.linalg.cholesky(Q).mT.contiguous()
    peers: dict[str, Solve] = {
        "qpth": qpth,
        "MOREAU, quad_form": cvxpylayers(formed, (P, q, M, r), (x,), "MOREAU"),
        "MOREAU, sum_squares": cvxpylayers(rooted, (S, q, M, r), (x,), "MOREAU"),
        "QPLayer": qplayer,
    }
    if n <= 10:
        peers["DIFFCP"] = cvxpylayers(rooted, (S, q, M, r), (x,), "DIFFCP")
    layer = compiled(DENSE, n=n, m=m)
    return Row(
        f"dense QP {n} / {m}, batch {batch}", (Q, p, G, h), layer, peers, exact[Q.numel() :], weight,
        lambda z: outside((G @ z.unsqueeze(-1)).squeeze(-1) - h), floor, aim, 1e-7, (1, 2, 3),
        {"MOREAU, sum_squares": (root, p, G, h), "DIFFCP": (root, p, G, h)},
    )  # fmt: skip


NEAREST = """layer Nearest(n, m):
  given b in R^m, c in R^n
  param A in R^(m, n)
  argmin_{z in R^n} ||z - c||^2 subject to A z = b
"""


def nearest(floor: float, aim: float) -> Row:
    n, m, batch = 60, 20, 64
    seeded(n, m)
    A, b, c = torch.randn(m, n, dtype=D), torch.randn(batch, m, dtype=D), torch.randn(batch, n, dtype=D)
    x, r, s = cp.Variable(n), cp.Parameter(m), cp.Parameter(n)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - s)), [A.numpy() @ x == r])
    layer = compiled(NEAREST, n=n, m=m)
    layer.A = A
    layer.requires_grad_(False)
    exact = gradients(
        problem, x, (r, s), problem.constraints,
        lambda z, b, c: (z - c) @ (z - c), lambda z, b, c: A @ z - b, (b, c), weight := ramp(n),
    )  # fmt: skip
    peers = both(problem, (r, s), (x,))
    return Row(
        f"equalities {n} / {m}, batch {batch}, A shared", (b, c), layer, peers, exact, weight,
        lambda z: outside((z @ A.mT - b).abs()), floor, aim, 1e-7, (0, 1),
    )  # fmt: skip


EQUALITY = """layer Equality(n, m):
  given Q in PSD(n), p in R^n, A in R^(m, n), b in R^m
  argmin_{z in R^n} 1/2 z^T Q z + p^T z subject to A z = b
"""


def equality(floor: float, aim: float) -> Row:
    n, m, batch = 60, 20, 64
    seeded(n, m, batch)
    L = torch.randn(batch, n, n, dtype=D) / n**0.5
    Q, p, A = L @ L.mT + 0.1 * torch.eye(n, dtype=D), torch.randn(batch, n, dtype=D), torch.randn(batch, m, n, dtype=D)
    b = torch.randn(batch, m, dtype=D)
    x, P, q = cp.Variable(n), cp.Parameter((n, n), PSD=True), cp.Parameter(n)
    M, r = cp.Parameter((m, n)), cp.Parameter(m)
    problem = cp.Problem(cp.Minimize(0.5 * cp.quad_form(x, P) + q @ x), [M @ x == r])
    exact = gradients(
        problem, x, (P, q, M, r), problem.constraints,
        lambda z, Q, p, A, b: 0.5 * z @ (Q @ z) + p @ z, lambda z, Q, p, A, b: A @ z - b, (Q, p, A, b),
        weight := ramp(n),
    )  # fmt: skip
    peers = {"MOREAU, quad_form": cvxpylayers(problem, (P, q, M, r), (x,), "MOREAU")}
    layer = compiled(EQUALITY, n=n, m=m)
    return Row(
        f"equalities {n} / {m}, batch {batch}, Q and A per sample", (Q, p, A, b), layer, peers, exact[Q.numel() :],
        weight, lambda z: outside(((A @ z.unsqueeze(-1)).squeeze(-1) - b).abs()), floor, aim, 1e-7, (1, 2, 3),
    )  # fmt: skip


def simplex(floor: float, aim: float) -> Row:
    n, batch = 300, 64
    seeded(n)
    y = torch.randn(batch, n, dtype=D)
    x, s = cp.Variable(n), cp.Parameter(n)
    rows: list[Any] = [2 * x >= 0, cp.sum(x) == 1]  # MOREAU drops a plain x >= 0
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - s)), rows)
    weight = ramp(n)
    top = y.sort(-1, descending=True).values
    shift = (top.cumsum(-1) - 1) / torch.arange(1, n + 1, dtype=D)
    on = (y > shift.gather(1, (top > shift).sum(-1, keepdim=True) - 1)).to(D)
    exact = on * (weight - (on * weight).sum(-1, keepdim=True) / on.sum(-1, keepdim=True))
    peers = both(problem, (s,), (x,))
    layer = compiled("argmin_{z in simplex(n)} ||z - y||^2", n=n)
    return Row(
        f"simplex projection n = {n}, batch {batch}", (y,), layer, peers, exact.flatten(), weight,
        lambda z: outside(-z, (z.sum(-1) - 1).abs()), floor, aim, 1e-7, (0,),
    )  # fmt: skip


FIT = """layer Fit(m, n):
  given A in R^(m, n), b in R^m
  argmin_{z in R^n} ||A z - b||^2
"""


def least_squares(floor: float, aim: float) -> Row:
    m, n, batch = 100, 20, 32
    seeded(n, m)
    A, b = torch.randn(batch, m, n, dtype=D), torch.randn(batch, m, dtype=D)
    x, M, r = cp.Variable(n), cp.Parameter((m, n)), cp.Parameter(m)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(M @ x - r)))
    exact = gradients(
        problem, x, (M, r), (), lambda z, A, b: (A @ z - b) @ (A @ z - b), None, (A, b), weight := ramp(n)
    )
    peers = both(problem, (M, r), (x,))
    layer = compiled(FIT, n=n, m=m)
    return Row(
        f"least squares {m} × {n}, batch {batch}", (A, b), layer, peers, exact, weight, lambda z: 0.0, floor, aim, 1e-7,
        (0, 1),
    )  # fmt: skip


SPARSE = """layer Sparse(n, m):
  given p in R^n, h in R^m
  param G in R^(m, n), w in nonneg^n
  argmin_{z in R^n} 1/2 sum(w * z^2) + p^T z subject to G z <= h
"""


def active_rows(G: Tensor, w: Tensor, p: Tensor, h: Tensor, on: Tensor) -> Tensor:
    """Those rows of a diagonal program at which the conditions hold exactly, from a guess: a conic solver takes a row
    with a multiplier of 1e-5 for idle."""
    for _ in range(20):
        rows = on.nonzero().squeeze(-1)
        A = G[rows] / w
        v = torch.linalg.solve(A @ G[rows].mT, -(A @ p) - h[rows])
        slack = h + G @ ((p + G[rows].mT @ v) / w)
        y = torch.zeros_like(h).index_copy(0, rows, v)
        after = torch.where(on, y > 0, slack < -1e-9)
        if bool((after == on).all()):
            return rows
        on = after
    raise RuntimeError("no exact reference")


def sparse(batch: int, floor: float, aim: float) -> Row:
    sp: Any = import_module("scipy.sparse")

    n = 1024
    random = np.random.default_rng(0)
    G = sp.random(n, n, density=0.01, random_state=0, data_rvs=random.standard_normal, format="csr")
    w = np.abs(random.standard_normal(n)) + 0.1
    h = (G @ random.standard_normal((n, batch))).T + random.random((batch, n))
    data = (torch.from_numpy(random.standard_normal((batch, n))), torch.from_numpy(h))
    full = torch.from_numpy(G.toarray())
    x, q, r = cp.Variable(n), cp.Parameter(n), cp.Parameter(n)
    problem = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(cp.multiply(np.sqrt(w), x)) + q @ x), [G @ x <= r])
    weight = ramp(n)
    exact = [torch.zeros_like(t) for t in data]
    for i in range(batch):  # by hand: the reduced KKT system of 1024 unknowns
        q.value, r.value = data[0][i].numpy(), data[1][i].numpy()
        solved(problem)
        lam = np.asarray(problem.constraints[0].dual_value)
        on = active_rows(
            full, torch.from_numpy(w), data[0][i], data[1][i], torch.from_numpy(lam > r.value - G @ x.value)
        )
        A = full[on] / torch.from_numpy(w)
        v = torch.linalg.solve(A @ full[on].mT, A @ weight)
        exact[0][i] = -(weight - full[on].mT @ v) / torch.from_numpy(w)
        exact[1][i, on] = v
    layer = compiled(SPARSE, n=n, m=n)
    layer.G, layer.w = full, torch.from_numpy(w)
    layer.requires_grad_(False)
    peers = {"MOREAU": cvxpylayers(problem, (q, r), (x,), "MOREAU")}
    return Row(
        f"sparse QP n = {n}, batch {batch}", data, layer, peers, torch.cat([t.flatten() for t in exact]), weight,
        lambda z: outside(z @ full.mT - data[1]), floor, aim, 1e-7, (0, 1),
    )  # fmt: skip


CONTROL = """layer Control(N, n, m):
  given x0 in R^n
  param A in R^(n, n), B in R^(n, m)
  argmin_{x in R^(N+1, n), u in R^(N, m)} sum(1/2 x[i+1]^T x[i+1] + 0.05 u[i]^T u[i] for i in N)
    subject to x[0] = x0, x[i+1] = A x[i] + B u[i] for i in N, -0.4 <= u <= 0.4
  return u
"""


def control(floor: float, aim: float) -> Row:
    N, n, m, batch = 20, 8, 4, 32
    seeded(N)
    A = torch.eye(n, dtype=D) + 0.15 * torch.randn(n, n, dtype=D) / n**0.5
    B, x0 = 0.3 * torch.randn(n, m, dtype=D), torch.randn(batch, n, dtype=D)
    X, U = [cp.Variable(n) for _ in range(N + 1)], [cp.Variable(m) for _ in range(N)]
    a, b, s = cp.Parameter((n, n)), cp.Parameter((n, m)), cp.Parameter(n)
    rows: list[Any] = [X[0] == s]
    cost: Any = 0
    for t in range(N):
        rows += [X[t + 1] == a @ X[t] + b @ U[t], U[t] <= 0.4, -U[t] <= 0.4]
        cost = cost + 0.5 * cp.sum_squares(X[t + 1]) + 0.05 * cp.sum_squares(U[t])
    problem = cp.Problem(cp.Minimize(cost), rows)
    flat = cp.Variable(N * m)
    tied = cp.Problem(cp.Minimize(cost), [*rows, *(flat[t * m : t * m + m] == U[t] for t in range(N))])

    def rolled(u: Tensor, x0: Tensor, A: Tensor, B: Tensor) -> Tensor:
        total, x = u.new_zeros(()), x0
        for t in range(N):
            x = A @ x + B @ u[t * m : t * m + m]
            total = total + 0.5 * x @ x + 0.05 * u[t * m : t * m + m] @ u[t * m : t * m + m]
        return total

    # condensed: the states are functions of the controls, and each box row has the multiplier of its constraint
    boxes = [r for t in range(N) for r in rows[2 + 3 * t : 4 + 3 * t]]

    def box(u: Tensor, *_: Tensor) -> Tensor:
        return torch.cat([v for t in range(N) for v in (u[t * m : t * m + m] - 0.4, -u[t * m : t * m + m] - 0.4)])

    exact = gradients(tied, flat, (s, a, b), boxes, rolled, box, (x0, A, B), weight := ramp(N * m))
    layer = compiled(CONTROL, N=N, n=n, m=m)
    names = ("A", "B")

    def ours(x0: Tensor, A: Tensor, B: Tensor) -> Tensor:
        found = torch.func.functional_call(layer, dict(zip(names, (A, B), strict=True)), (x0,))
        return found.flatten(1)

    moreau = cvxpylayers(problem, (s, a, b), U, "MOREAU")
    return Row(
        f"MPC horizon {N}, state {n}, control {m}, boxes, batch {batch}", (x0, A, B), ours, {"MOREAU": moreau}, exact,
        weight, lambda u: outside(u.abs() - 0.4), floor, aim, 1e-7, (0, 1, 2),
    )  # fmt: skip


# -- beyond ------------------------------------------------------------------------------------------------------------

LOGISTIC = """layer Logistic(N, n):
  given X in R^(N, n)
  const y in R^N
  argmin_{w in R^n} sum(softplus(-(y * (X w)))) + 0.1 ||w||^2
"""


def logistic(floor: float, aim: float) -> Row:
    N, n, batch = 50, 20, 32
    seeded(N, n)
    y, X = torch.randn(N, dtype=D).sign(), torch.randn(batch, N, n, dtype=D)
    w, M = cp.Variable(n), cp.Parameter((N, n))
    problem = cp.Problem(cp.Minimize(cp.sum(cp.logistic(-cp.multiply(y.numpy(), M @ w))) + 0.1 * cp.sum_squares(w)))
    exact = gradients(
        problem, w, (M,), (), lambda w, X: torch.nn.functional.softplus(-y * (X @ w)).sum() + 0.1 * w @ w, None, (X,),
        weight := ramp(n),
    )  # fmt: skip
    peers = both(problem, (M,), (w,))
    layer = compiled(LOGISTIC, N=N, n=n, y=y)
    return Row(
        f"logistic regression {N} × {n}, batch {batch}", (X,), layer, peers, exact, weight, lambda w: 0.0, floor, aim,
        1e-5, (0,),
    )  # fmt: skip


ENTROPY = """layer Entropy(n, m, k):
  given b in R^m, g in R^k
  param A in R^(m, n), F in R^(k, n)
  argmax_{x in R^n} -sum(x * log(x)) subject to A x = b, F x <= g
"""


def entropy(floor: float, aim: float) -> Row:
    n, m, k, batch = 20, 5, 4, 32
    seeded(n, m, k)
    A, F = torch.rand(m, n, dtype=D), torch.rand(k, n, dtype=D)
    x0 = torch.rand(batch, n, dtype=D)
    x0 = x0 / x0.sum(-1, keepdim=True)
    b, g = x0 @ A.mT, x0 @ F.mT + 0.02 * torch.rand(batch, k, dtype=D)
    x, r, s = cp.Variable(n), cp.Parameter(m), cp.Parameter(k)
    problem = cp.Problem(cp.Maximize(cp.sum(cp.entr(x))), [A.numpy() @ x == r, F.numpy() @ x <= s])
    exact = gradients(
        problem, x, (r, s), problem.constraints, lambda x, b, g: (x * x.log()).sum(),
        lambda x, b, g: torch.cat([A @ x - b, F @ x - g]), (b, g), weight := ramp(n),
    )  # fmt: skip
    peers = both(problem, (r, s), (x,))
    layer = compiled(ENTROPY, n=n, m=m, k=k)
    layer.A, layer.F = A, F
    layer.requires_grad_(False)
    return Row(
        f"entropy maximisation n = {n}, batch {batch}", (b, g), layer, peers, exact, weight,
        lambda x: outside((x @ A.mT - b).abs(), x @ F.mT - g), floor, aim, 1e-5, (0, 1),
    )  # fmt: skip


CONES = """layer Cones(n, m):
  given p in R^n, a in R^m, b in R^m, c in R^m
  param A in R^(m, n), B in R^(m, n), C in R^(m, n)
  argmin_{x in R^n} p^T x + 0.05 ||x||^2 subject to ||A x + a|| <= 4, ||B x + b|| <= 4, ||C x + c|| <= 4
"""


def cones(n: int, floor: float, aim: float) -> Row:
    m, batch = 6, 32
    seeded(n, m)
    blocks = [torch.randn(m, n, dtype=D) for _ in range(3)]
    data = (torch.randn(batch, n, dtype=D), *(0.5 * torch.randn(batch, m, dtype=D) for _ in range(3)))
    x, q, shifts = cp.Variable(n), cp.Parameter(n), [cp.Parameter(m) for _ in range(3)]
    rows: list[Any] = [cp.norm(M.numpy() @ x + s) <= 4 for M, s in zip(blocks, shifts, strict=True)]
    problem = cp.Problem(cp.Minimize(q @ x + 0.05 * cp.sum_squares(x)), rows)

    def norms(x: Tensor, p: Tensor, *shifts: Tensor) -> Tensor:
        return torch.stack([torch.linalg.vector_norm(M @ x + s) - 4 for M, s in zip(blocks, shifts, strict=True)])

    exact = gradients(
        problem, x, (q, *shifts), rows, lambda x, p, *_: p @ x + 0.05 * x @ x, norms, data, weight := ramp(n)
    )
    peers = both(problem, (q, *shifts), (x,))
    layer = compiled(CONES, n=n, m=m)
    layer.A, layer.B, layer.C = blocks
    layer.requires_grad_(False)

    def violation(x: Tensor) -> float:
        pairs = zip(blocks, data[1:], strict=True)
        return outside(*(torch.linalg.vector_norm(x @ M.mT + s, dim=-1) - 4 for M, s in pairs))

    return Row(
        f"SOCP n = {n}, batch {batch}", data, layer, peers, exact, weight, violation, floor, aim, 1e-5, (0, 1, 2, 3)
    )


def matrices(floor: float, aim: float) -> Row:
    n, m, batch = 8, 5, 32
    seeded(n, m)
    As = [np.random.randn(n, n) for _ in range(m)]
    As = [a + a.T for a in As]
    As[0] = np.eye(n)
    b = [float(np.trace(a)) for a in As]
    C = torch.randn(batch, n, n, dtype=D)
    C = C + C.mT
    X, M = cp.Variable((n, n), PSD=True), cp.Parameter((n, n))
    rows: list[Any] = [cp.trace(a @ X) == value for a, value in zip(As, b, strict=True)]
    problem = cp.Problem(cp.Minimize(cp.trace(M @ X)), rows)
    held = ", ".join(f"tr(A{i} X) = {value!r}" for i, value in enumerate(b))
    names = ", ".join(f"A{i} in R^(n, n)" for i in range(m))
    layer = compiled(
        f"layer Sdp(n):\n  given C in R^(n, n)\n  const {names}\n  argmin_{{X in PSD(n)}} tr(C X) subject to {held}\n",
        n=n, **{f"A{i}": torch.from_numpy(a) for i, a in enumerate(As)},
    )  # fmt: skip
    weight = ramp(n, n)
    weight = weight + weight.mT
    from .semidefinite_exact import gradient

    exact = gradient(problem, X, M, rows, torch.from_numpy(np.stack(As)), C, weight)
    peers = both(problem, (M,), (X,))
    values, A = torch.tensor(b, dtype=D), torch.from_numpy(np.stack(As))

    def violation(X: Tensor) -> float:
        gap = (torch.einsum("kij,bji->bk", A, X) - values).abs()
        return outside(gap, -torch.linalg.eigvalsh((X + X.mT) / 2)[:, 0])

    return Row(f"SDP {n} × {n}, batch {batch}", (C,), layer, peers, exact, weight, violation, floor, aim, 1e-5, (0,))


ROWS: dict[str, Callable[[], Row]] = {
    "dense 10": lambda: dense(10, 10, 64, 2.5, 3.4),
    "dense 50": lambda: dense(50, 50, 64, 2.5, 4),
    "dense 40": lambda: dense(40, 60, 48, 1.4, 1.6),
    "dense 100": lambda: dense(100, 100, 128, 2, 2.7),
    "equality shared": lambda: nearest(100, 500),
    "equality each": lambda: equality(4, 6),
    "simplex": lambda: simplex(80, 140),
    "least squares": lambda: least_squares(80, 200),
    "logistic": lambda: logistic(15, 30),
    "entropy": lambda: entropy(3, 5),
    "cones 5": lambda: cones(5, 1.0, 1.4),
    "cones 10": lambda: cones(10, 1.0, 1.4),
    "cones 30": lambda: cones(30, 1.0, 1.4),
    "matrices": lambda: matrices(2, 4),
    "sparse 16": lambda: sparse(16, 4, 12),
    "sparse 32": lambda: sparse(32, 4, 12),
    "control": lambda: control(6, 11),
}


def names() -> Sequence[str]:
    return list(ROWS)
