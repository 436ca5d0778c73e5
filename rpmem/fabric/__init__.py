"""Connections and one-sided operations; knows no pool and no ssh."""
