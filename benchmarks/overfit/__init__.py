"""A proof that the model learns: the tiny preset on one real CT and a radiograph made from it."""
