"""A run's configuration: its keys, and the files that set them."""
