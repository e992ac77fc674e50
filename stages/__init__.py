"""The processes of the pipeline, one package each; they never import one another."""
