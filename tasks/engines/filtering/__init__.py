"""The engines of the step filter: one module each, named as the engine."""
