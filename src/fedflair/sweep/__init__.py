"""Many training runs, compared by mean and deviation."""
