"""Ray: a cluster, its workers, and the pool of them that may die, hang or join at any time."""
