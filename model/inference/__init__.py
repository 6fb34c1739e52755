"""From an image file to text, boxes and masks in the file's own coordinates."""
