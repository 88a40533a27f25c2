"""The preparation command of the dataset's documentation; run it from the folder benchmarks."""
