"""Engines that put boxes on radiographs."""
