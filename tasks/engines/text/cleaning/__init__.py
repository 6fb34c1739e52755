"""Cleaning by rules: what one image cannot show is dropped or rewritten."""

from tasks.engines.text.cleaning.cleaner import RulesCleaner, refusal

__all__ = ["RulesCleaner", "refusal"]
