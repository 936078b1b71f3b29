"""Several processes that share the steps of one run."""
