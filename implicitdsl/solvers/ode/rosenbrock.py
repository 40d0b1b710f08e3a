"""Rodas5P: a Rosenbrock method for stiff equations, one factorisation a step and no iteration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..factor import decompose, inverse, substitute
from ..problem import Inputs
from .method import Method, Step
from .problem import OdeProblem
from .tableau import Row

GAMMA = 0.21193756319429014
C = (0.0, 0.6358126895828704, 0.4095798393397535, 0.9769306725060716, 0.4288403609558664, 1.0, 1.0, 1.0)
D = (GAMMA, -0.42387512638858027, -0.3384627126235924, 1.8046452872882734, 2.325825639765069, 0.0, 0.0, 0.0)
LAST = (-7.502846399306121, 2.561846144803919, -11.627539656261098, -0.18268767659942256, 0.030198172008377946)
A = (
    (),
    (3.0,),
    (2.849394379747939, 0.45842242204463923),
    (-6.954028509809101, 2.489845061869568, -10.358996098473584),
    (2.8029986275628964, 0.5072464736228206, -0.3988312541770524, -0.04721187230404641),
    LAST,
    (*LAST, 1.0),
    (*LAST, 1.0, 1.0),
)
COUPLING = (
    (),
    (-14.155112264123755,),
    (-17.97296035885952, -2.859693295451294),
    (147.12150275711716, -1.41221402718213, 71.68940251302358),
    (165.43517024871676, -0.4592823456491126, 42.90938336958603, -5.961986721573306),
    (24.854864614690072, -3.0009227002832186, 47.4931110020768, 5.5814197821558125, -0.6610691825249471),
    (
        30.91273214028599,
        -3.1208243349937974,
        77.79954646070892,
        34.28646028294783,
        -19.097331116725623,
        -28.087943162872662,
    ),
    (
        37.80277123390563,
        -3.2571969029072276,
        112.26918849496327,
        66.9347231244047,
        -40.06618937091002,
        -54.66780262877968,
        -9.48861652309627,
    ),
)
B = (*LAST, 1.0, 1.0, 1.0)
DENSE = (
    (
        25.948786856663858,
        -2.5579724845846235,
        10.433815404888879,
        -2.3679251022685204,
        0.524948541321073,
        1.1241088310450404,
        0.4272876194431874,
        -0.17202221070155493,
    ),
    (
        -9.91568850695171,
        -0.9689944594115154,
        3.0438037242978453,
        -24.495224566215796,
        20.176138334709044,
        15.98066361424651,
        -6.789040303419874,
        -6.710236069923372,
    ),
    (
        11.419903575922262,
        2.8879645146136994,
        72.92137995996029,
        80.12511834622643,
        -52.072871366152654,
        -59.78993625266729,
        -0.15582684282751913,
        4.883087185713722,
    ),
)
INTERPOLANT = tuple((b + p, q - p, r - q, -r) for b, p, q, r in zip(B, *DENSE, strict=True))
"""b_i(θ) of y + Σ b_i(θ) k_i = (1 − θ) y + θ (y₁ + (1 − θ) Σ (p_i + θ q_i + θ² r_i) k_i), where y₁ = y + Σ b_i k_i."""


@dataclass(frozen=True)
class Rodas5P(Method):
    """(I/γ − hJ) k_i = h f(t + c_i h, y + Σ a_ij k_j) + Σ C_ij k_j + h² d_i ∂f/∂t; order 5(4), A- and L-stable, with
    J = ∂f/∂y; dense output of order 4 (Steinebach, BIT 63, 2023). Cost: 8 evaluations, a Jacobian and one LU, 2/3 n³,
    a step.
    """

    @property
    def implicit(self) -> bool:
        return True

    @property
    def control(self) -> int:
        return 5

    @property
    def order(self) -> int:
        return 5

    @property
    def evaluations(self) -> int:
        return 8

    @property
    def interpolant(self) -> tuple[Row, ...]:
        return INTERPOLANT

    def step(self, problem: OdeProblem, a: Inputs, t: Tensor, H: Tensor, y: Tensor, first: Tensor) -> Step:
        lu, pivots = decompose(self._matrix(problem, a, t, H, y))
        return self._stages(problem, a, t, H, y, first, lambda b: substitute(lu, pivots, b.unsqueeze(-1)).squeeze(-1))

    def smooth(self, problem: OdeProblem, a: Inputs, t: Tensor, H: Tensor, y: Tensor, first: Tensor) -> Step:
        # an inverse: its derivatives are right in every mode of torch.func, those of solves are not
        inverted = inverse(self._matrix(problem, a, t, H, y))
        return self._stages(problem, a, t, H, y, first, lambda b: (inverted @ b.unsqueeze(-1)).squeeze(-1))

    def _matrix(self, problem: OdeProblem, a: Inputs, t: Tensor, H: Tensor, y: Tensor) -> Tensor:
        eye = torch.eye(y.shape[1], dtype=y.dtype, device=y.device)
        return eye / GAMMA - H.unsqueeze(-1) * problem.matrix(t, y, a)

    def _stages(
        self,
        problem: OdeProblem,
        a: Inputs,
        t: Tensor,
        H: Tensor,
        y: Tensor,
        first: Tensor,
        solve: Callable[[Tensor], Tensor],
    ) -> Step:
        drift = problem.time_derivative(t, y, a)
        k: list[Tensor] = []
        state = y
        for i, (row, coupling) in enumerate(zip(A, COUPLING, strict=True)):
            if i:
                state = _plus(y, row, k)
            rate = first if i == 0 else problem.rate(t if problem.autonomous else t + C[i] * H[:, 0], state, *a)
            right = _plus(H * rate, coupling, k)
            if drift is not None and D[i]:
                right = right + D[i] * H * H * drift
            k.append(solve(right))
        new = state + k[-1]
        last = problem.rate(t if problem.autonomous else t + H[:, 0], new, *a)
        return Step(new, last, error=k[-1], K=torch.stack(k))


def _plus(y: Tensor, weights: tuple[float, ...], k: list[Tensor]) -> Tensor:
    for w, x in zip(weights, k, strict=True):
        y = y + w * x
    return y
