"""What is measured in a radiograph itself: heart, mediastinum, effusion, density, nodules."""
