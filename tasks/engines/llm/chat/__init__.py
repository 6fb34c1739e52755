"""Chat engines: OpenAI-compatible servers, vLLM in this process, batch files."""
