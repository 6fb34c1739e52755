"""The engines of the step clean: one module each, named as the engine."""
