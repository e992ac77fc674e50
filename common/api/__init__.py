"""The NestJS API as all who talk to it see it."""
