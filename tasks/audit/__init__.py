"""Labels held against a reference that people gave."""
