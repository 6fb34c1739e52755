"""The engines that carry out the steps, behind one protocol a step."""
