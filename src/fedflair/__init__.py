"""fedflair: the FLAIR federated-learning benchmark as software."""

__version__ = "0.1.0"
