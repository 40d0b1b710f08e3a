"""Quadratic programs over a horizon as blocks by stage: H_t, F_t with x[t+1] = F_t w[t] + g_t, and rows G_t w[t]."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from .quadratic import Quadratic


@dataclass(frozen=True)
class Layout:
    """Which entries of z and which rows of C belong to a stage t = 0 … N, w[t] = (u[t], x[t]) having k of them.

    columns (N + 1, k): places in z, controls first, −1 where a stage has fewer; moves (N, n): rows of C that give
    x[t+1]; local (N + 1, r): the other rows, −1 where a stage has fewer.
    """

    columns: Tensor
    moves: Tensor
    local: Tensor
    size: int

    @staticmethod
    def of(
        controls: Sequence[Sequence[int]],
        states: Sequence[Sequence[int]],
        moves: Sequence[Sequence[int]],
        local: Sequence[Sequence[int]],
    ) -> Layout:
        """From lists by stage."""
        size = sum(map(len, controls)) + sum(map(len, states))
        columns = torch.cat([_padded(controls), _padded(states)], -1)
        return Layout(columns, _padded(moves), _padded(local), size)

    def to(self, device: torch.device) -> Layout:
        """On another device."""
        if self.columns.device == device:
            return self
        return Layout(self.columns.to(device), self.moves.to(device), self.local.to(device), self.size)

    @property
    def controls(self) -> int:
        """k − n."""
        return self.columns.shape[1] - self.moves.shape[1]

    @cached_property
    def found(self) -> Tensor:
        """(size,): where each entry of z is among the flattened columns."""
        flat = self.columns.flatten()
        place = torch.empty(self.size, dtype=torch.int64, device=flat.device)
        place[flat[flat >= 0]] = (flat >= 0).nonzero().squeeze(-1)
        return place

    def rows_found(self, count: int) -> Tensor:
        """(count,): where each row of C is among the flattened moves, then the flattened local rows."""
        flat = torch.cat([self.moves.flatten(), self.local.flatten()])
        place = torch.empty(count, dtype=torch.int64, device=flat.device)
        place[flat[flat >= 0]] = (flat >= 0).nonzero().squeeze(-1)
        return place


def _padded(lists: Sequence[Sequence[int]]) -> Tensor:
    longest = max((len(row) for row in lists), default=0)
    return torch.tensor([[*row, *[-1] * (longest - len(row))] for row in lists], dtype=torch.int64).reshape(-1, longest)


def picked(v: Tensor, index: Tensor) -> Tensor:
    """v (B, m) by stage, (stages, B, k); zero where the index is −1."""
    found = v[:, index.clamp(min=0)] * (index >= 0)
    return found.transpose(0, 1)


@dataclass(frozen=True)
class Staged:
    """A quadratic program by stage; every member that `Convex` asks for, in time and memory linear in the horizon.

    H (N + 1, [B,] k, k), one on the diagonal of entries that do not exist; F (N, [B,] n, k); G (N + 1, [B,] r, k);
    sign (N, n) is that of x[t+1] in its rows. q, d, and z, y of every function are as in `Quadratic`.
    """

    layout: Layout
    H: Tensor
    F: Tensor
    G: Tensor
    sign: Tensor
    q: Tensor
    d: Tensor
    equalities: int
    rows: int

    @staticmethod
    def of(problem: Quadratic, layout: Layout) -> Staged:
        """The blocks of dense matrices, which hold nothing else."""
        layout = layout.to(problem.q.device)
        at, moves, local = layout.columns, layout.moves, layout.local
        there = (at >= 0).to(problem.q.dtype)
        first, columns = at.clamp(min=0), at.clamp(min=0).unsqueeze(-2)

        def block(M: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
            found = M[..., rows.unsqueeze(-1), columns]
            return found if M.ndim == 2 else found.transpose(0, 1)

        eye = torch.diag_embed(1 - there)
        if problem.P is None:
            H = eye
        else:
            mask = there.unsqueeze(-1) * there.unsqueeze(-2)
            batched = problem.P.ndim > 2
            H = block(problem.P, first, columns) * _spread(mask, batched) + _spread(eye, batched)
        C = problem.C
        sample = C if C.ndim == 2 else C[0]
        sign = sample[moves, at[1:, layout.controls :]]
        batched = C.ndim > 2
        F = -block(C, moves, columns[:-1]) * _spread(there[:-1].unsqueeze(-2) * sign.unsqueeze(-1), batched)
        real = (local >= 0).to(C.dtype)
        G = block(C, local.clamp(min=0), columns) * _spread(there.unsqueeze(-2) * real.unsqueeze(-1), batched)
        return Staged(layout, H, F, G, sign, problem.q, problem.d, problem.equalities, problem.rows)

    @cached_property
    def _place(self) -> Tensor:
        return self.layout.rows_found(self.d.shape[-1])

    @cached_property
    def is_equality(self) -> Tensor:
        """(N + 1, 1, r): the local rows that are equalities."""
        local = self.layout.local
        return ((local >= 0) & (local < self.equalities)).unsqueeze(1)

    # -- products

    def stages(self, z: Tensor) -> Tensor:
        """z by stage, (N + 1, B, k)."""
        return picked(z, self.layout.columns)

    def flat(self, w: Tensor) -> Tensor:
        """The inverse of `stages`."""
        return w.transpose(0, 1).flatten(1)[:, self.layout.found]

    def to_rows(self, moved: Tensor, local: Tensor) -> Tensor:
        """(B, m) from (N, B, n) of the moves and (N + 1, B, r) of the local rows."""
        both = torch.cat([moved.transpose(0, 1).flatten(1), local.transpose(0, 1).flatten(1)], -1)
        return both[:, self._place]

    def by_rows(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """The inverse of `to_rows`: (N, B, n), with the sign of x[t+1] taken out, and (N + 1, B, r)."""
        return picked(y, self.layout.moves) * self.sign.unsqueeze(1), picked(y, self.layout.local)

    def local(self, y: Tensor) -> Tensor:
        """What y (B, m) has for the local rows, (N + 1, B, r)."""
        return picked(y, self.layout.local)

    def apply_P(self, z: Tensor) -> Tensor:
        """P z."""
        return self.flat(along(self.H, self.stages(z)))

    def apply_C(self, z: Tensor) -> Tensor:
        """C z."""
        w, m = self.stages(z), self.layout.controls
        moved = w[1:, :, m:] - along(self.F, w[:-1])
        return self.to_rows(moved * self.sign.unsqueeze(1), along(self.G, w))

    def pull_C(self, y: Tensor) -> Tensor:
        """Cᵀ y."""
        moved, local = self.by_rows(y)
        w, m = along(self.G.mT, local), self.layout.controls
        w[1:, :, m:] += moved
        w[:-1] -= along(self.F.mT, moved)
        return self.flat(w)

    def apply_G(self, z: Tensor) -> Tensor:
        """The rows of the inequalities of C z."""
        local = along(self.G, self.stages(z)).transpose(0, 1).flatten(1)
        return local[:, self._place[self.equalities :] - self.layout.moves.numel()]

    def pull_G(self, x: Tensor) -> Tensor:
        """Gᵀ x."""
        whole = torch.cat([x.new_zeros(x.shape[0], self.equalities), x], -1)
        return self.flat(along(self.G.mT, picked(whole, self.layout.local)))

    # -- what solvers ask

    def select(self, index: Tensor) -> Staged:
        """The samples at `index` (or where a mask is true)."""
        H, F, G = (t[:, index] if t.ndim > 3 else t for t in (self.H, self.F, self.G))
        q, d = (t[index] if t.ndim > 1 else t for t in (self.q, self.d))
        count = int(index.sum()) if index.dtype == torch.bool else len(index)
        rows = count if self.rows > 1 else self.rows
        return replace(self, H=H, F=F, G=G, q=q, d=d, rows=rows)

    def finite(self) -> Tensor:
        """Whether all numbers of a sample are finite, (B,)."""
        good = self.q.new_ones(self.rows, dtype=torch.bool)
        for t in (self.H, self.F, self.G):
            here = t.isfinite().flatten(-2).all(-1)
            good = good & here.all(0)
        return good & self.q.isfinite().all(-1) & self.d.isfinite().all(-1)

    def cured(self) -> Staged:
        """Without NaN and infinity."""
        H, F, G, q, d = (t.nan_to_num(0.0, 0.0, 0.0) for t in (self.H, self.F, self.G, self.q, self.d))
        return replace(self, H=H, F=F, G=G, q=q, d=d)

    def sizes(self) -> tuple[Tensor, Tensor]:
        """See `Quadratic.sizes`; the moves count as one, since they stay as they are."""
        norm = self.G.norm(dim=-1)
        norm = norm.unsqueeze(1) if norm.ndim == 2 else norm
        steps, n = self.layout.moves.shape
        ones = norm.new_ones(steps, norm.shape[1], n)
        size = self.to_rows(ones, norm)
        most = torch.where(self._absent(self.H), 0.0, self.H).abs().amax((-2, -1)).amax(0)
        cost = torch.maximum(self.q.abs().amax(-1, keepdim=True), most.unsqueeze(-1))
        return size if self.G.ndim > 3 else size[0], cost

    def scaled(self, rows: Tensor, cost: Tensor) -> Staged:
        """See `Quadratic.scaled`; `rows` is one for the moves."""
        factor = picked(rows.reshape(-1, rows.shape[-1]), self.layout.local)
        G = factor.unsqueeze(-1) * (self.G if self.G.ndim > 3 else self.G.unsqueeze(1))
        H = self.H if self.H.ndim > 3 or cost.ndim < 2 else self.H.unsqueeze(1)
        H = torch.where(self._absent(H), H, H * cost.unsqueeze(-1))
        return replace(self, H=H, G=G if G.shape[1] > 1 else G.squeeze(1), q=self.q * cost, d=self.d * rows)

    def measured(self, unit: Tensor | float) -> Staged:
        """See `Quadratic.measured`."""
        return replace(self, q=self.q / unit, d=self.d / unit)

    def _absent(self, H: Tensor) -> Tensor:
        """The ones of H that stand for no entry."""
        return _spread(torch.diag_embed(self.layout.columns < 0), H.ndim > 3)

    # -- what the recursion asks

    @cached_property
    def firm(self) -> Tensor:
        """(N + 1, 1 or B, r): cost / ‖row‖², the weight of a penalty on a local row that is as large as the cost."""
        norm, cost = self.sizes()
        weight = cost / norm.square().clamp(min=torch.finfo(norm.dtype).tiny)
        return picked(weight.reshape(-1, norm.shape[-1]), self.layout.local)

    @cached_property
    def _outer(self) -> Tensor:
        return (self.G.unsqueeze(-1) * self.G.unsqueeze(-2)).flatten(-2)

    def weighted(self, w: Tensor, shift: Tensor) -> Tensor:
        """H + GᵀWG + shift, (N + 1, B, k, k), for weights w (N + 1, B, r) of the local rows and a shift (1,) or (B, 1)
        of the diagonal."""
        k = self.H.shape[-1]
        if self.G.ndim == 3:
            found = (w @ self._outer).unflatten(-1, (k, k))
        else:
            found = (w.unsqueeze(-1) * self.G).mT @ self.G
        found = found + (self.H if self.H.ndim > 3 else self.H.unsqueeze(1))
        found.diagonal(dim1=-2, dim2=-1).add_(shift)
        return found


def along(M: Tensor, w: Tensor) -> Tensor:
    """M_t w_t of every stage for w (N, B, k) and M (N, …, k) or (N, B, …, k)."""
    return w @ M.mT if M.ndim == 3 else (M @ w.unsqueeze(-1)).squeeze(-1)


def _spread(t: Tensor, batched: bool) -> Tensor:
    """With a dimension for the batch after that of the stages."""
    return t.unsqueeze(1) if batched else t
