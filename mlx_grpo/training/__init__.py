"""Train a policy: the loop, its step, and what a run keeps."""
