"""Everything that touches bytes: schemas, shards, manifests, catalogue, images, datasets."""
