"""From noise, sampling and rounds to epsilon, and back."""
