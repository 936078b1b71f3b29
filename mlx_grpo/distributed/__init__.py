"""Sharing the steps of one run among several processes."""
