"""The run folder on disk: what it is written with, and read by."""
