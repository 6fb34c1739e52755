"""The embedded CT engine: structures that follow from Hounsfield units and classical vision."""

from tasks.engines.segmentation.hounsfield.engine import HounsfieldSegmenter

__all__ = ["HounsfieldSegmenter"]
