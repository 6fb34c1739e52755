"""How images are rendered: projections, slices, windows, overlays."""
