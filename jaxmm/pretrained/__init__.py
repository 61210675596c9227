"""Weights of released models, from files that users have."""
