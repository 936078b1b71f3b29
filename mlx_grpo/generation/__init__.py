"""Sampled completions of prompts, a group at a time."""
