"""Shortlist: a job and a candidate in, a decision with reasons out."""
