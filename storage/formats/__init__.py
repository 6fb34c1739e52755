"""The file formats that images come in, each read into the canonical form of `storage.images`."""
