"""The real dataset over the network: resumable, verified."""
