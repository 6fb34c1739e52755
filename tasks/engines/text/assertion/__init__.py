"""Assertion by rules: is a finding stated as present, probable, possible or absent?"""

from tasks.engines.text.assertion.context import ContextClassifier

__all__ = ["ContextClassifier"]
