"""How a model is asked to do the text steps, and how its answers are read."""
