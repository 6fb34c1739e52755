"""The steps of the pipeline and the engines that carry them out."""
