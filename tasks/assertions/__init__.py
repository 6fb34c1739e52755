"""Assertion by rules: is a finding stated as present, absent or uncertain?"""

from tasks.assertions.context import ContextClassifier

__all__ = ["ContextClassifier"]
