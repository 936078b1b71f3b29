"""Rows to prompts, and rollouts to batches."""
