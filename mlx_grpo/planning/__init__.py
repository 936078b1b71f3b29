"""Predict a run's memory and time before it starts."""
