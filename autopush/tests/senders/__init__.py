"""Application servers in other languages, each with the library people use for Web Push there."""
