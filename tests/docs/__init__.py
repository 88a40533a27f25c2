"""Tests of docs/generate: what the site says of the program."""
