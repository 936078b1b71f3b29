"""The countdown task: reach a number from given numbers."""
