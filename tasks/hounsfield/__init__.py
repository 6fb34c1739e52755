"""The embedded CT engine: structures that follow from Hounsfield units and classical vision."""

from tasks.hounsfield.engine import HounsfieldSegmenter

__all__ = ["HounsfieldSegmenter"]
