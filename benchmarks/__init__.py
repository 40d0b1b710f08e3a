"""Timings against other libraries, each beside its accuracy. Peers live in an environment of their own: `make bench`."""
