"""What a root solver is given: a batched residual with the derivatives that are known in closed form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

Inputs = tuple[Tensor, ...]
Linear = Callable[[Tensor], Tensor]
Shifted = Callable[[Tensor, Tensor], Tensor]


class Unique(NamedTuple):
    """z = (x, ν, λ): so many `unknowns` x and multipliers ν of `equations`; whether λ and ν are asked for (`duals`)."""

    unknowns: int
    equations: int
    duals: bool


@dataclass(frozen=True)
class RootProblem:
    """F(z; a) = 0 for a batch of independent rows, z of shape (B, n).

    Every callable takes `(z, *a)` explicitly and depends on nothing else that is differentiated, so it works under
    `torch.func`. One of `residual` and `step` must be given; the methods below derive what else is missing from it by
    `torch.func`. All floating a_i count as differentiable.

    residual     F(z, *a) -> (B, n); `LevenbergMarquardt` takes any number m of equations, (B, m)
    step         G(z, *a) -> (B, n), where the equation is z = G(z, a); then F = z - G
    jacobian     (z, *a) -> ∂F/∂z (B, n, n), or (n, n) where all rows share it; if `diagonal`: (B, n) or (n,)
    constant     (*a) -> -F(0, *a), (B, n) or (n,), of an affine F: then F = J z - constant
    jvp          (z, v, *a) -> (∂F/∂z) v
    vjp          (z, u, *a) -> (∂F/∂z)ᵀ u
    vjp_inputs   (z, u, *a) -> tuple of (∂F/∂a_i)ᵀ u, each in the shape of a_i, or None where a_i has no derivative
    jvp_inputs   (z, tangents, *a) -> Σ (∂F/∂a_i) ȧ_i; a tangent that is None counts as zero
    pullback     (z, *a) -> (u -> (∂F/∂z)ᵀ u), with all that does not depend on u computed once
    pushforward  (z, *a) -> (v -> (∂F/∂z) v), likewise
    adjoint      (z, *a) -> ((u, g) -> g + (∂G/∂z)ᵀ u), a step of the adjoint's own fixed-point iteration, likewise
    linearised   (z, *a) -> three functions: what `pullback` returns, `vjp_inputs` of -u, what `adjoint` returns (None
                 without a step), with all that they share computed once
    stepper      (*a) -> (z -> G(z, *a)), with all that does not depend on z computed once
    stepped      () -> (z -> G(z)) of a problem that `at` made for its inputs: G once more, without asking for them
    ranks        core rank of each a_i: it has that many dimensions (shared by the batch) or a leading B before them
    hoist        (*a) -> this problem with everything that depends on a alone computed; called once a solve and again
                 after finished rows have left, its callables still receive (z, *a)
    diagonal     F is elementwise in z
    affine       F is affine in z
    precision    relative accuracy to which F can be evaluated where that is coarser than its dtype (lower-precision
                 functions inside); no smaller tolerance is asked for
    lower, upper the box in which the root is sought, numbers or (n,): Newton-like steps are clipped to it, bisection
                 uses it as its bracket
    proximal     (*a) -> (W, h) with z = σ(W z + h), for `PeacemanRachford`
    sylvester    (*a) -> (A, B, w) with F(Z) = w₀ A Z B + w₁ A Z + w₂ Z B + w₃ Z - C, for `Schur`
    optimum      F states the optimality of the first of its unknowns; ∂F/∂z may be singular, multipliers not unique
    activation   (x, alpha) -> prox of alpha·f at x, where σ is the prox of f
    """

    residual: Callable[..., Tensor] | None = None
    step: Callable[..., Tensor] | None = None
    jacobian: Callable[..., Tensor] | None = None
    constant: Callable[..., Tensor] | None = None
    jvp: Callable[..., Tensor] | None = None
    vjp: Callable[..., Tensor] | None = None
    vjp_inputs: Callable[..., tuple[Tensor | None, ...]] | None = None
    jvp_inputs: Callable[..., Tensor] | None = None
    ranks: tuple[int, ...] = ()
    pullback: Callable[..., Linear] | None = None
    pushforward: Callable[..., Linear] | None = None
    adjoint: Callable[..., Shifted] | None = None
    hoist: Callable[..., RootProblem] | None = None
    diagonal: bool = False
    affine: bool = False
    precision: float = 0.0
    lower: float | Tensor | None = None
    upper: float | Tensor | None = None
    proximal: Callable[..., tuple[Tensor, Tensor]] | None = None
    activation: Callable[[Tensor, float], Tensor] | None = None
    sylvester: Callable[..., tuple[Tensor, Tensor, Tensor]] | None = None
    linearised: Callable[..., tuple[Linear, Callable[[Tensor], Sequence[Tensor | None]], Shifted | None]] | None = None
    stepper: Callable[..., Linear] | None = None
    stepped: Callable[[], Linear] | None = None
    optimum: Unique | None = None

    def at(self, a: Inputs) -> RootProblem:
        """The problem to iterate on for these inputs, loop invariants hoisted."""
        if self.stepper is not None:
            step = self.stepper(*a)
            return self._with(step=lambda z, *_: step(z), stepped=lambda: step, stepper=None)
        return self if self.hoist is None else self.hoist(*a)

    def _with(self, **fields: Any) -> RootProblem:
        """`dataclasses.replace`, which sets two dozen fields one by one."""
        made = object.__new__(RootProblem)
        made.__dict__.update(self.__dict__, **fields)
        return made

    def held(self, z: Tensor, pull: Linear, adjoint: Shifted | None) -> RootProblem:
        """The problem with its linearisation at z known; elsewhere it is computed as before."""

        def pullback(at: Tensor, *a: Tensor) -> Linear:
            return pull if at is z else self.pull(at, a)

        def shifted(at: Tensor, *a: Tensor) -> Shifted:
            return adjoint if at is z and adjoint is not None else self.adjoint_step(at, a)

        return self._with(pullback=pullback, adjoint=shifted, hoist=None, stepper=None)

    def F(self, z: Tensor, a: Inputs) -> Tensor:
        """The residual, (B, n)."""
        if self.residual is not None:
            return self.residual(z, *a)
        assert self.step is not None, "a RootProblem needs `residual` or `step`"
        return z - self.step(z, *a)

    def G(self, z: Tensor, a: Inputs) -> Tensor:
        """The fixed-point map, (B, n); z - F where the equation is not of that form."""
        if self.step is not None:
            return self.step(z, *a)
        return z - self.F(z, a)

    def J(self, z: Tensor, a: Inputs) -> Tensor:
        """∂F/∂z as `jacobian` states it. Derived: m pullbacks in one vmap, (B, m, n), or one if `diagonal`."""
        if self.jacobian is not None:
            return self.jacobian(z, *a)
        m = z.shape[-1]
        if self.pullback is None and self.vjp is None:
            value, back, *_ = torch.func.vjp(lambda z: self.F(z, a), z)
            m, pull = value.shape[-1], lambda u: back(u)[0]
        else:  # given for as many equations as unknowns
            pull = self.pull(z, a)
        if self.diagonal:
            return pull(torch.ones_like(z))
        basis = torch.eye(m, dtype=z.dtype, device=z.device).unsqueeze(1).expand(m, z.shape[0], m)
        return torch.func.vmap(pull)(basis).transpose(0, 1)

    def pull(self, z: Tensor, a: Inputs) -> Linear:
        """u -> (∂F/∂z)ᵀ u at z."""
        if self.pullback is not None:
            return self.pullback(z, *a)
        vjp = self.vjp
        if vjp is not None:
            return lambda u: vjp(z, u, *a)
        pull = torch.func.vjp(lambda z: self.F(z, a), z)[1]
        return lambda u: pull(u)[0]

    def adjoint_step(self, z: Tensor, a: Inputs) -> Shifted:
        """(u, g) -> g + (∂G/∂z)ᵀ u at z."""
        if self.adjoint is not None:
            return self.adjoint(z, *a)
        if self.step is None or self.pullback is not None or self.vjp is not None:
            back = self.pull(z, a)
            return lambda u, g: (u - back(u)) + g
        pull = torch.func.vjp(lambda z: self.G(z, a), z)[1]
        return lambda u, g: pull(u)[0] + g

    def push(self, z: Tensor, a: Inputs) -> Linear:
        """v -> (∂F/∂z) v at z."""
        if self.pushforward is not None:
            return self.pushforward(z, *a)
        jvp = self.jvp
        if jvp is not None:
            return lambda v: jvp(z, v, *a)
        value, pull, *_ = torch.func.vjp(lambda z: self.F(z, a), z)
        back = torch.func.vjp(lambda u: pull(u)[0], torch.zeros_like(value))[1]  # see `directional`
        return lambda v: back(v)[0]

    def pull_inputs(self, z: Tensor, u: Tensor, a: Inputs) -> tuple[Tensor | None, ...]:
        """(∂F/∂a_i)ᵀ u for each input, summed over the batch where the input is shared."""
        if self.vjp_inputs is not None:
            return tuple(self.vjp_inputs(z, u, *a))
        places = [i for i, x in enumerate(a) if x.is_floating_point()]

        def of_inputs(*given: Tensor) -> Tensor:
            return self.F(z, _put(a, places, given))

        found: list[Tensor | None] = [None] * len(a)
        if places:
            for i, cotangent in zip(places, torch.func.vjp(of_inputs, *(a[i] for i in places))[1](u), strict=True):
                found[i] = cotangent
        return tuple(found)

    def push_inputs(self, z: Tensor, tangents: Sequence[Tensor | None], a: Inputs) -> Tensor:
        """Σ (∂F/∂a_i) ȧ_i, (B, n)."""
        if self.jvp_inputs is not None:
            return self.jvp_inputs(z, tuple(tangents), *a)
        given = [(i, t) for i, t in enumerate(tangents) if t is not None and a[i].is_floating_point()]
        if not given:
            return torch.zeros_like(z)
        places = [i for i, _ in given]

        def of_inputs(*values: Tensor) -> Tensor:
            return self.F(z, _put(a, places, values))

        return directional(of_inputs, tuple(a[i] for i in places), tuple(t for _, t in given))

    def take(self, a: Inputs, rows: Tensor) -> Inputs:
        """The inputs of some rows of the batch: batched a_i are gathered, shared ones stay."""
        return tuple(x.index_select(0, rows) if x.ndim > rank else x for x, rank in zip(a, self.ranks, strict=True))

    def clip(self, z: Tensor) -> Tensor:
        """z moved into the box from `lower` to `upper`."""
        if self.lower is not None:
            z = torch.maximum(z, self.lower) if isinstance(self.lower, Tensor) else z.clamp_min(self.lower)
        if self.upper is not None:
            z = torch.minimum(z, self.upper) if isinstance(self.upper, Tensor) else z.clamp_max(self.upper)
        return z


def _put(a: Inputs, places: list[int], values: Sequence[Tensor]) -> Inputs:
    new = list(a)
    for i, value in zip(places, values, strict=True):
        new[i] = value
    return tuple(new)


def directional(f: Callable[..., Tensor], at: tuple[Tensor, ...], along: tuple[Tensor, ...]) -> Tensor:
    """Σ (∂f/∂x_i) v_i as the transpose of the pullback, which is linear: two reverse passes, no forward-mode level.

    (Plain forward-mode AD does not nest in torch, so `torch.func.jvp` cannot serve inside its rules.)
    """
    value, pull, *_ = torch.func.vjp(f, *at)
    return torch.func.vjp(lambda u: pull(u), torch.zeros_like(value))[1](along)[0]
