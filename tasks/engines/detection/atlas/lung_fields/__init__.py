"""The lung fields of a frontal radiograph, found as two closed outlines."""
