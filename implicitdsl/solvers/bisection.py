"""Bracketing for equations of one unknown each: bisection, sped up by inverse quadratic interpolation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .guarded import GuardedNewton
from .loop import Iteration
from .problem import Inputs, RootProblem
from .verdict import CONVERGED, NO_SIGN_CHANGE, RUNNING, STALLED, Rule, Solved, View, norm, tolerance


class BracketState(NamedTuple):
    """Entry by entry, (B, n): the newest point x and the other end `far` of its bracket, the point dropped last, F at
    these, the place of the next one, how an infinite end moves, the slope over the first bracket; ‖F‖ at the best
    points and at the first ends, (B,)."""

    x: Tensor
    far: Tensor
    old: Tensor
    f: Tensor
    f_far: Tensor
    f_old: Tensor
    ahead: Tensor
    reach: Tensor
    steep: Tensor
    error: Tensor
    at_ends: Tensor


@dataclass(frozen=True)
class Bisection(Iteration):
    """x ← x + t·(far - x) with t by inverse quadratic interpolation where it is safe, else 1/2 (Chandrupatla).

    Needs equations that hold one unknown each (`diagonal`, or n = 1). The brackets are `lower` and `upper` of the
    problem, split at z0; an infinite end moves outwards by twice the width a step, on the side of the smaller |F| (both
    ends in turns where it is the same), until the sign of F changes. Always keeps a sign change, so it cannot leave the
    bracket or diverge; where there is none to begin with, a row ends as NO_SIGN_CHANGE. A root at one of the first ends
    counts only if F has no sign change between, and a jump or a pole ends as STALLED or DIVERGED. Where the slope is
    known in closed form and the bracket is finite, Newton steps inside the bracket come first (`GuardedNewton`), and
    rows that they do not settle start anew. Cost an iteration: one F and about 60 n flops.
    Source: Chandrupatla (1997); for the expansion Press et al. (2007), zbrac.
    """

    tol: float | None = None
    max_iter: int = 200

    def rule(self, n: int, dtype: torch.dtype) -> Rule:
        # between two looks the bracket of any entry has shrunk to its rounding
        return Rule(tolerance(self.tol, dtype), 1, 128, self.max_iter)

    def solve(self, problem: RootProblem, z0: Tensor, a: Inputs) -> Solved:
        if z0.shape[-1] > 1 and not problem.diagonal:
            raise ValueError("bisection needs equations of one unknown each; try newton or levenberg_marquardt")
        if torch.compiler.is_compiling() or not _has_slope(problem, z0):
            return self._alone(problem, z0, a)
        first = GuardedNewton(tol=self.tol, max_iter=min(self.max_iter, 40)).solve(problem, z0, a)
        first = first._replace(nfe=2 * first.nfe + 2)
        rows = (first.status != CONVERGED).nonzero().view(-1)
        if not len(rows):
            return first
        more = self._alone(problem, z0.index_select(0, rows), problem.take(a, rows))
        fields = (f.index_copy(0, rows, m) for f, m in zip(first[:5], more[:5], strict=True))
        return Solved(*fields)  # pyright: ignore[reportArgumentType]  # five tensors

    def _alone(self, problem: RootProblem, z0: Tensor, a: Inputs) -> Solved:
        """Without slopes."""
        solved = super().solve(problem, z0, a)
        return solved._replace(nfe=solved.nfe + 4)

    def init(self, problem: RootProblem, z0: Tensor, a: Inputs) -> BracketState:
        base = problem.clip(z0)
        free_below, free_above = _free(problem, z0)
        width = base.abs().clamp_min(1.0)
        low = torch.where(free_below, base - width, problem.clip(torch.full_like(z0, -torch.inf)))
        high = torch.where(free_above, base + width, problem.clip(torch.full_like(z0, torch.inf)))
        (low, f_low), (high, f_high) = _ends(problem, a, low, high)
        f = problem.F(base, a)
        # the start splits the bracket, if it lies inside and F exists there
        usable = (base > torch.minimum(low, high)) & (base < torch.maximum(low, high)) & ~f.isnan()
        x, f = torch.where(usable, base, low), torch.where(usable, f, f_low)
        below = _opposite(f_low, f) & usable
        far, f_far = torch.where(below, low, high), torch.where(below, f_low, f_high)
        old, f_old = torch.where(below, high, low), torch.where(below, f_high, f_low)
        # without a sign change both ends are needed to look further out
        whole = ~_opposite(f, f_far)
        x, f = torch.where(whole, low, x), torch.where(whole, f_low, f)
        error = norm(_best(x, f, far, f_far)[1])
        sizes = (torch.where(g.isfinite(), g.abs(), 0.0) for g in (f_low, f_high, f))
        at_ends = norm(torch.stack(tuple(sizes)).amax(0))
        steep = ((f_high - f_low) / (high - low)).abs().nan_to_num(0.0, 0.0)
        reach = torch.full_like(x, 2.0)
        return self._aim(problem, BracketState(x, far, old, f, f_far, f_old, x, reach, steep, error, at_ends))

    def step(self, problem: RootProblem, a: Inputs, state: BracketState) -> BracketState:
        x = state.ahead
        f = problem.F(x, a)
        held = _opposite(state.f, state.f_far)
        lost = f.isnan()
        flips = _opposite(state.f, f)
        # inside a bracket: the half that keeps the sign change
        far, f_far = torch.where(flips, state.x, state.far), torch.where(flips, state.f, state.f_far)
        old, f_old = torch.where(flips, state.far, state.x), torch.where(flips, state.f_far, state.f)
        # outside: x replaces the end it lies beyond, which becomes its partner if the sign has changed at last
        beyond = (x - state.x).abs() < (x - state.far).abs()
        near, f_near = torch.where(beyond, state.x, state.far), torch.where(beyond, state.f, state.f_far)
        other, f_other = torch.where(beyond, state.far, state.x), torch.where(beyond, state.f_far, state.f)
        far = torch.where(held, far, torch.where(flips, near, other))
        f_far = torch.where(held, f_far, torch.where(flips, f_near, f_other))
        old = torch.where(held, old, torch.where(flips, other, near))
        f_old = torch.where(held, f_old, torch.where(flips, f_other, f_near))
        x, f = torch.where(lost, state.x, x), torch.where(lost, state.f, f)
        far, f_far = torch.where(lost, state.far, far), torch.where(lost, state.f_far, f_far)
        old, f_old = torch.where(lost, state.old, old), torch.where(lost, state.f_old, f_old)
        reach = torch.where(lost, state.reach / 4, 2.0)
        error = norm(_best(x, f, far, f_far)[1])
        # far out any F is small beside x, so on the way to a bracket the error does not count as fallen
        error = torch.where(_opposite(f, f_far).all(-1), error, torch.maximum(error, state.error))
        return self._aim(
            problem, BracketState(x, far, old, f, f_far, f_old, x, reach, state.steep, error, state.at_ends)
        )

    def view(self, state: BracketState) -> View:
        z, f = _best(state.x, state.f, state.far, state.f_far)
        slope = ((state.f - state.f_far) / (state.x - state.far)).abs()
        correction = norm(torch.where(f == 0, 0.0, f / slope))
        slow = ((slope < 1e-3 * state.steep) & (f != 0)).any(-1)
        # across a jump or a pole the bracket shrinks but F does not
        smooth = state.error <= 1e-3 * state.at_ends
        correction = torch.where(smooth, correction, torch.inf)
        open_ = ~_opposite(state.f, state.f_far)
        hopeless = (open_ & (state.ahead == state.x)).any(-1) & state.error.isfinite()
        apart = (state.x - state.far).abs()
        closed = apart <= 4 * torch.finfo(z.dtype).eps * torch.maximum(state.x.abs(), state.far.abs())
        outcome = torch.where((closed | (f == 0)).all(-1), STALLED, RUNNING)
        outcome = torch.where(hopeless, NO_SIGN_CHANGE, outcome)
        return View(z, state.error, correction, outcome=outcome, slow=slow)

    def _aim(self, problem: RootProblem, state: BracketState) -> BracketState:
        """Place the next point; at x itself where an unbracketed entry has nowhere to go."""
        x, far, old, f, f_far, f_old = state[:6]
        xi = (x - far) / (old - far)
        phi = (f - f_far) / (f_old - f_far)
        safe = (phi.square() < xi) & ((1 - phi).square() < 1 - xi)
        t = f / (f - f_far) * f_old / (f_old - f_far)
        t = t - (old - x) / (far - x) * f / (f_old - f) * f_far / (f_far - f_old)
        least = 2 * torch.finfo(x.dtype).eps * torch.minimum(x.abs(), far.abs()) / (x - far).abs()
        least = least.nan_to_num(0.5, 0.5).clamp_max(0.5)
        t = torch.where(safe & t.isfinite(), torch.maximum(t, least).minimum(1 - least), 0.5)
        t = torch.where(state.reach < 2, state.reach / 4, t)  # F was NaN there
        inside = x + t * (far - x)
        free_below, free_above = _free(problem, x)
        low, high = torch.minimum(x, far), torch.maximum(x, far)
        at_low, at_high = torch.where(x < far, f, f_far).abs(), torch.where(x < far, f_far, f).abs()
        # where they are equal, as on a plateau, the ends move in turns: x is the one that moved last
        down = free_below & (~free_above | (at_low < at_high) | ((at_low == at_high) & (x > far)))
        stride = state.reach * (high - low)
        outside = torch.where(down, low - stride, high + stride)
        stay = ~(free_below | free_above) | (outside.abs() > torch.finfo(x.dtype).eps ** -2)
        outside = torch.where(stay, x, outside)
        return state._replace(ahead=torch.where(_opposite(f, f_far), inside, outside))


def _has_slope(problem: RootProblem, z0: Tensor) -> bool:
    """Whether the slope is known in closed form and every entry has a finite bracket."""
    if problem.jacobian is None or not problem.diagonal or not len(z0):
        return False
    ends = torch.full_like(z0[:1], torch.inf)
    return bool((problem.clip(ends).isfinite() & problem.clip(-ends).isfinite()).all())


def _opposite(f: Tensor, g: Tensor) -> Tensor:
    """A sign change between two values; a zero is one, NaN is none."""
    return ((f <= 0) & (g >= 0)) | ((f >= 0) & (g <= 0))


def _best(x: Tensor, f: Tensor, far: Tensor, f_far: Tensor) -> tuple[Tensor, Tensor]:
    near = (f.abs() <= f_far.abs()) | f_far.isnan()
    return torch.where(near, x, far), torch.where(near, f, f_far)


def _free(problem: RootProblem, like: Tensor) -> tuple[Tensor, Tensor]:
    """Which entries have no lower, and which no upper end."""
    ends = (problem.clip(torch.full_like(like, end)) for end in (-torch.inf, torch.inf))
    low, high = ends
    return low.isinf(), high.isinf()


def _ends(problem: RootProblem, a: Inputs, low: Tensor, high: Tensor) -> tuple[tuple[Tensor, Tensor], ...]:
    """The ends with F there; moved inside by √eps of the width where F is NaN, or 0 with a sign change further in."""
    f_low, f_high = problem.F(low, a), problem.F(high, a)
    inset = torch.finfo(low.dtype).eps ** 0.5 * (high - low)
    inner = (low + inset, high - inset)
    f_inner = tuple(problem.F(x, a) for x in inner)
    moved = []
    for x, f, x_in, f_in, f_other in (
        (low, f_low, inner[0], f_inner[0], f_high),
        (high, f_high, inner[1], f_inner[1], f_low),
    ):
        move = f.isnan() | ((f == 0) & (f_in != 0) & (f_other != 0) & _opposite(f_in, f_other))
        moved.append((torch.where(move, x_in, x), torch.where(move, f_in, f)))
    return tuple(moved)
