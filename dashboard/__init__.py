"""What people look at: the grounded-report gallery."""
