"""Users over a store: clients for training, and datasets for people's own code."""
