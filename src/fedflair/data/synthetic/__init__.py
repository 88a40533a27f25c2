"""The synthetic twin: users, labels and drawn photographs with the dataset's structure."""
