"""The network: vision, language, localization."""
