"""The NestJS API, for every stage that sends requests to it."""
