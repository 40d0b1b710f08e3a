"""Specs that must parse: one for each thing that the language says, and one that holds everything at once."""

from __future__ import annotations

DEQ = """\
layer Deq(n, m):                   # n, m: dimensions
  given x in R^m                   # inputs, per sample; leading batch dimensions are implicit
  param W in SpectralBall(n, 0.9)  # learnable; the set is the parametrization
        U in R^(n, m)
        b in R^n = zeros
  find z in R^n such that z = tanh(W z + U x + b)
  using anderson(depth=5, tol=1e-6), backward gmres(tol=1e-6)
  return z
"""

SENTENCES = {
    "fixed_point": "find z in R^n such that z = tanh(W z + x)",
    "root": "find z in nonneg such that a^2 + z^2 = 1",
    "system": "find u in R^n, v in R^n such that u = tanh(A v + x), v = sigmoid(B u + y)",
    "ode": "find z(t) in R^n for t in [0, 1] such that dz/dt = f(z, t), z(0) = x",
    "event": "find q(t) in R for t in [0, 10] until q <= 0 such that d²q/dt² = -g, q(0) = h, dq/dt(0) = 0",
    "hamiltonian": "find q(t) in R^n, p(t) in R^n for t in [0, T] such that "
    "dq/dt = grad(H(q, p), p), dp/dt = -grad(H(q, p), q), q(0) = q0, p(0) = p0",
    "flow": "find z(t) in R^n, l(t) in R for t in [0, 1] such that "
    "dz/dt = f(z, t), dl/dt = -div(f(z, t), z), z(0) = x, l(0) = 0",
    "sde": "find z(t) in R^n for t in [0, 1] such that dz = f(z, t) dt + g(z, t) dW, z(0) = x",
    "pde": "find u(x, t) in R for x in grid(0, 1, N, periodic) for t in [0, 0.5] such that "
    "∂u/∂t + u ∂u/∂x = nu ∂²u/∂x², u(x, 0) = u0",
    "optnet": "argmin_{z in R^n} 1/2 z^T Q z + q^T z subject to A z = b, ineq: G z <= h",
    "projection": "argmin_{z in simplex(n)} ||z - y||^2",
    "sdp": "argmin_{X in PSD(n)} tr(C X) subject to diag(X) = 1",
    "mpc": "argmin_{x in R^(N+1, n), u in R^(N, m)} sum(x[i]^T Q x[i] + u[i]^T R u[i] for i in N)\n"
    "  subject to x[0] = x0, x[i+1] = A x[i] + B u[i] for i in N, -1 <= u <= 1",
    "bare_fixed_point": "find z such that z = tanh(W z + x)",
    "bare_ode": "dz/dt = f(z, t)",
    "bare_argmin": "argmin_z 1/2 z^T Q z + p^T z subject to G z <= h",
    "lorenz": "find z(t) in R^3 for t in [0, 1] such that\n"
    "  dz/dt = [10 (z[1] - z[0]), z[0] (28 - z[2]) - z[1], z[0] z[1] - 8/3 z[2]], z(0) = x",
}

EVERYTHING = """\
# about the file

import Deq, Other from "deq.imp"  # and why


layer All(n,m , T): given x∈ℝ^m, ts in R^T
  # above the parameters
  param
    W in SpectralBall(n,0.9)   # one
    bb in ℝ² = normal( 0,0.1 ) # two


  const c in R=0.1; d in R;
  fn f:(R^n,R)→R^n as "a.b:C"
     g : R^n -> R
  let enc=Deq(n,2m)
  where Q=L L^T+1e-4 I(n)
        H(q,p)=2q+(a+b)(c+d)
  find z∈ℝ^n,w in R^(2 n+1,N + 1)
    such that
    top: z=tanh(W z+U x+ # inside
       b)
    w==x[i+1] for i in 1 : n-1;  # last
    |  |x| - y | <= z², ||z||_∞ ≤ 3
    A'B = 1
  using anderson( depth = 5,tol=1e-6 ),
      backward gmres,start zeros,on_failure = raise
  find q(t) in R, u(x, t) for t in (0,T) for x in grid(0,1,N)
    until q<=0 or q >= 1 such that d²q/dt² = -g ∂²u/∂x² - dz / dt,q(0)=h
      delta/dt = x ^ T + y^(T), x - -y = A⁻¹ᵀ
  argmax_{ X in PSD(n) } -tr(C X)/2 + 1 / 2 x ⋅ y ∘ z ./ w
      subject to X ⪰ 0,
        C X <= d for i in N
           for j in 2:N
      E X = 3
  return z,dual(top),y=C z^T , x[:,0], A[i + j,1]
  # end
layer Empty:
""".replace("A'B", "A B").replace("A⁻¹ᵀ", "A⁻¹ b")

SPECS = {
    "deq": DEQ,
    "everything": EVERYTHING,
    **SENTENCES,
    **{
        f"{name}_layer": f"layer L(n, m, N, T):\n  {text.replace(chr(10), chr(10) + '  ')}\n"
        for name, text in SENTENCES.items()
        if name != "bare_ode"  # under a header a relation needs a `find`
    },
}
