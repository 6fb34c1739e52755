"""The embedded 2D detector: an anatomical atlas registered to a radiograph by its lung fields."""

from tasks.engines.detection.atlas.engine import AtlasDetector

__all__ = ["AtlasDetector"]
