"""What an audit takes of a training's options, and what is its own; apart from what measures, which is slow to load."""

# Of the cohort, what changes who is in a sum, or what of an update reaches it.
COHORT = ("cohort_size", "cohort_sampling", "dropout_rate", "compression", "top_k_fraction")
# Of the audit and not of a training. A training's seed is not the audit's.
OWN = ("json", "seed", "rounds", "sampling_rate", "num_canaries")
