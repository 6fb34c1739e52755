"""The three text steps done by a large language model, at a fraction of the paper's tokens."""
