"""Chat engines: servers, vLLM in process, batch files."""
