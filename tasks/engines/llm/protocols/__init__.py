"""The protocols of the text steps: the requests to a model, and how its answers are read."""
