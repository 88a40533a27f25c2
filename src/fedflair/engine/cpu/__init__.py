"""Layers for a CPU in fewer passes over memory and with fewer multiplications."""
