"""The promptable localization network: masks and instance boxes, in 2D and 3D."""
