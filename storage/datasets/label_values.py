"""What the cell of a label may hold, in every table of labels."""

LABEL_VALUES = {"1": 1, "1.0": 1, "0": 0, "0.0": 0, "-1": -1, "-1.0": -1, "": None}
"""Present, absent, uncertain, or that nothing is known."""
