"""The whole pipeline: real processes under supervisord, against the sandbox."""
