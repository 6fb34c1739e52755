"""Overfitting test: the tiny preset memorizes one real CT and a radiograph projected from it."""
