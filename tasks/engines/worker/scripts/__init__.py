"""Programs of other Python environments; nothing here is imported by VividMed."""
