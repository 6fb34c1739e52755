"""Preparation of images and conversations for the network."""
