"""Benchmarks of speed, memory and agreement, each beside the usual alternative."""
