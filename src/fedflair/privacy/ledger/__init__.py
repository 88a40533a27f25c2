"""What a private run released, round by round, and whether that is still the truth."""
