"""Strategies of correlated noise: factorisations of the running sums over a run's rounds, each a file."""
