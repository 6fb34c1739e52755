"""Engines that put masks on CT volumes."""
