"""What a flow run needs around it: Prefect's defaults, progress, signals."""
