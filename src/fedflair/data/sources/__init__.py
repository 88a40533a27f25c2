"""A dataset in anybody's form, read as records."""
