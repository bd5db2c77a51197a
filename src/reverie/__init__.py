"""Reverie: neural worlds that answer your keys."""
