"""Images: their types, and readers of the file formats that they come in."""
