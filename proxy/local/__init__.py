"""Models that the gateway runs itself: OpenAI's request into the engine's, the engine's events into OpenAI's reply."""
