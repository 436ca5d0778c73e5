"""The media of regions, for other compiled parts; nothing here is for Python."""
