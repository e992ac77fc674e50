"""Stand-ins for all that is outside (the API, OAuth2, OpenAI, Ollama); shares no code with the stages."""
