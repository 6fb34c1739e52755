"""Engines that live in a Python environment of their own: `docs/worker-engines.md`."""
