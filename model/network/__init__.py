"""The network: vision transformer, language model and localization network."""
