"""The anatomical reference: one labelled CT, projected, and its registration to a radiograph."""
