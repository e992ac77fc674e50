"""The processes of the pipeline: one package for each. They do not import each other."""
