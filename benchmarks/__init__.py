"""Measurements of speed, memory and agreement, each beside what a user would otherwise use."""
