"""Connections and one-sided operations; independent of pools and ssh."""
