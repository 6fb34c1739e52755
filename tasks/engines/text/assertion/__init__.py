"""Assertion by rules: is a finding stated as present, absent or uncertain?"""

from tasks.engines.text.assertion.context import ContextClassifier

__all__ = ["ContextClassifier"]
