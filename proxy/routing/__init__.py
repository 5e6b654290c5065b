"""Choosing a backend: how busy each is, the policies that compare them, and what makes two requests alike."""
