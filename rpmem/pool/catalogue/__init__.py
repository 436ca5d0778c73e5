"""The catalogue of named arrays in a pool: a log on the medium, an index in memory."""
