"""Scores of a partition and of its users, as tasks for workers."""
