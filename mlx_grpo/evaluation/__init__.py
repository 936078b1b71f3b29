"""Compare models on held-out prompts."""
