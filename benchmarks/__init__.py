"""Timings against other libraries, each beside its accuracy: `make bench`. Peers live in an environment of their own."""
