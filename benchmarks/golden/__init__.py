"""What the pipeline and the model must keep giving: frozen once, held against every change."""
