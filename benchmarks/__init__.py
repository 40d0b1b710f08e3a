"""Timings against other libraries, each beside its accuracy. The peers live in an environment of their own."""
