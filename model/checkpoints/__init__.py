"""Weights that others trained, in the layouts they are published in."""
