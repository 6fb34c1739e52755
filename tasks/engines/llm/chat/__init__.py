"""Chat engines: OpenAI-compatible servers, vLLM as a child process, batch files."""
