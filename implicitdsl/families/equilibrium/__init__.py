"""`find u such that F(u) = 0`: roots, fixed points and systems of them."""
