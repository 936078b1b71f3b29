"""Models: found, checked, loaded, and asked for log-probabilities."""
