"""The engines of the step extract: one module each, named as the engine."""
