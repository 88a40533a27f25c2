"""Finished and unfinished runs, compared in one page."""
