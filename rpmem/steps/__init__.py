"""Durability steps: how written bytes become durable."""
