"""Exact, mergeable scores; they know neither a model nor a store."""
