"""Specs that must be right: every sentence of the language, bare and declared. Used by the parser's, checker's
and fuzz tests.
"""

from __future__ import annotations

BARE: dict[str, str] = {
    "fixed_point": "find z such that z = tanh(W z + x)",
    "root": "find z in nonneg such that a^2 + z^2 = 1",
    "system": "find u in R^n, v in R^n such that u = tanh(A v + x), v = sigmoid(B u + y)",
    "ode_bare": "dz/dt = f(z, t)",
    "ode": "find z(t) in R^n for t in [0, 1] such that dz/dt = f(z, t), z(0) = x\nreturn z(1)",
    "event": "find q(t) in R for t in [0, 10] until q <= 0 such that d²q/dt² = -g, q(0) = h, dq/dt(0) = "
    "0\nreturn t, q(t)",
    "hamiltonian": "where H(q, p) = 1/2 p^T p + 1/2 q^T q\n"
    "find q(t) in R^n, p(t) in R^n for t in [0, T] such that dq/dt = grad(H(q, p), p), dp/dt = -grad(H(q, p), "
    "q), q(0) = q0, p(0) = p0",
    "flow": "find z(t) in R^n, l(t) in R for t in [0, 1] such that dz/dt = f(z, t), dl/dt = -div(f(z, t), z), "
    "z(0) = x, l(0) = 0",
    "sde": "find z(t) in R^n for t in [0, 1] such that dz = f(z, t) dt + g(z, t) dW, z(0) = x",
    "pde": "find u(x, t) in R for x in grid(0, 1, N, periodic) for t in [0, 0.5] such that ∂u/∂t + u ∂u/∂x = nu "
    "∂²u/∂x², u(x, 0) = u0",
    "qp": "argmin_z 1/2 z^T Q z + p^T z subject to G z <= h",
    "optnet": "argmin_{z in R^n} 1/2 z^T Q z + q^T z subject to A z = b, ineq: G z <= h\nreturn z, dual(ineq)",
    "projection": "argmin_{z in simplex(n)} ||z - y||^2",
    "sdp": "argmin_{X in PSD(n)} tr(C X) subject to diag(X) = 1",
    "mpc": "argmin_{x in R^(N+1, n), u in R^(N, m)} sum(x[i]^T Q x[i] + u[i]^T R u[i] for i in N)\n"
    "  subject to x[0] = x0, x[i+1] = A x[i] + B u[i] for i in N, -1 <= u <= 1",
    "lasso": "argmin_{z in R^n} ||A z - b||^2 + lam ||z||_1",
    "logistic_growth": "dz/dt = r z (1 - z)",
}

DECLARED: dict[str, str] = {
    "deq": """layer Deq(n, m):                                  # n, m: dimensions
  given x in R^m                                  # inputs, per sample
  param W in SpectralBall(n, 0.9)                 # learnable
        U in R^(n, m)
        b in R^n = zeros
  find z in R^n such that z = tanh(W z + U x + b)
  using anderson(depth=5, tol=1e-6), backward gmres(tol=1e-6)
  return z
""",
    "cell": """layer Cell(n):
  given x in R^n
  fn f: (R^n, R^n) -> R^n
  find z in R^n such that z = f(z, x)
  using start zeros, on_failure=raise
""",
    "energy": """layer Energy(n):
  given x in R^n
  param Q in PD(n); L in R^(n, n)
  const lam in R = 0.1
  where E(z) = 1/2 z^T Q z + sum(softplus(L z)) + lam/2 ||z||^2 - x^T z
  find z in R^n such that grad(E(z), z) = 0
  return z, curvature = hess(E(z), z)
""",
    "two_blocks": """layer Two(n):
  given x in R^n
  param A in SpectralBall(n, 0.5), B in SpectralBall(n, 0.5)
  find u in R^n such that top: u = tanh(A u + x)
  find v in R^n such that v = tanh(B v + u)
  return u, v
""",
    "sublayer": """layer Inner(n):
  given x in R^n
  param W in SpectralBall(n, 0.9)
  find z in R^n such that z = tanh(W z + x)
  return z

layer Outer(n, m):
  given x in R^m
  param U in R^(n, m)
        C in R^(m, n)
  let inner = Inner(n)
  return C inner(U x)
""",
    "literals": """layer Lorenz:
  given x in R^3
  const s in R = 10
  where f(z) = [s (z[1] - z[0]), z[0] (28 - z[2]) - z[1], z[0] z[1] - 8/3 z[2]]
  find z(t) in R^3 for t in [0, 0.1] such that dz/dt = f(z), z(0) = x
  return z(0.1), jac(f(x), x)
""",
    "sets": """layer Sets(n, m):
  given x in R^n, y in R^(m, n)
  param a in positive = 0.5
        b in nonneg^n
        c in (0, 1)
        d in [-1, 1]^(m, n)
        e in simplex(n)
        g in ball(n, 2)
        h in sphere(n)
        P in PSD(n); P1 in PD(n); S in Sym(n); K in Skew(n); O in Orth(n)
        F in Stiefel(n, m); M in Monotone(n, 0.1)
  return a c (P + P1 + S + K + O + M) (x + b * e + g + h) + (d + y)^T (F^T x)
""",
}
